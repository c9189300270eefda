#define GRAPHTIDE_ISA avx512_vnni
#define GRAPHTIDE_VNNI
#include "simd_avx512.hpp"

#include "kernels.hpp"

namespace graphtide {

const Kernels* avx512_vnni_kernels() {
    static constexpr Kernels kernels = avx512_vnni::table("avx512_vnni");
    return &kernels;
}

}  // namespace graphtide
