#define GRAPHTIDE_ISA portable
#include "simd_portable.hpp"

#include "kernels.hpp"

namespace graphtide {

const Kernels* portable_kernels() {
    static constexpr Kernels kernels = portable::table("portable");
    return &kernels;
}

}  // namespace graphtide
