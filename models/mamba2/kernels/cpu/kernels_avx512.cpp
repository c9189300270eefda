#define GRAPHTIDE_ISA avx512
#include "simd_avx512.hpp"

#include "kernels.hpp"

namespace graphtide {

const Kernels* avx512_kernels() {
    static constexpr Kernels kernels = avx512::table("avx512");
    return &kernels;
}

}  // namespace graphtide
