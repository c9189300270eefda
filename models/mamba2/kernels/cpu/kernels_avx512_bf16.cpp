#define GRAPHTIDE_ISA avx512_bf16
#define GRAPHTIDE_VNNI
#define GRAPHTIDE_BF16
#include "simd_avx512.hpp"

#include "kernels.hpp"

namespace graphtide {

const Kernels* avx512_bf16_kernels() {
    static constexpr Kernels kernels = avx512_bf16::table("avx512_bf16");
    return &kernels;
}

}  // namespace graphtide
