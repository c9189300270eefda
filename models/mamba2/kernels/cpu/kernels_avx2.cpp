#define GRAPHTIDE_ISA avx2
#define GRAPHTIDE_MADD
#include "simd_avx2.hpp"

#include "kernels.hpp"

namespace graphtide {

const Kernels* avx2_kernels() {
    static constexpr Kernels kernels = avx2::table("avx2");
    return &kernels;
}

}  // namespace graphtide
