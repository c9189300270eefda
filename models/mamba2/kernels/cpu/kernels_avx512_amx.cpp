#define GRAPHTIDE_ISA avx512_amx
#define GRAPHTIDE_VNNI
#define GRAPHTIDE_BF16
#define GRAPHTIDE_AMX
#include "simd_avx512.hpp"

#include "kernels.hpp"

namespace graphtide {

const Kernels* avx512_amx_kernels() {
    static constexpr Kernels kernels = avx512_amx::table("avx512_amx");
    return &kernels;
}

}  // namespace graphtide
