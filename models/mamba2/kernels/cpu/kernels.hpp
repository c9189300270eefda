// Included once by each kernels_*.cpp, after its simd_*.hpp: the same sources, compiled for one instruction set.
// These units use nothing of the C++ library: an inline function of it, compiled here for AVX-512, could be the one that
// the linker keeps for all.
#pragma once

#include "matmul.hpp"
#if defined(GRAPHTIDE_VNNI)
#include "matmul_vnni.hpp"
#endif
#if defined(GRAPHTIDE_MADD)
#include "matmul_madd.hpp"
#endif
#if defined(GRAPHTIDE_BF16)
#include "matmul_bf16.hpp"
#endif
#include "layer.hpp"
#include "advance.hpp"

namespace graphtide::GRAPHTIDE_ISA {

// `count` is a multiple of 8 units in both probes.
inline float read_probe(const float* data, long count) {
    Unit sums[8];
    for (int u = 0; u < 8; ++u) sums[u] = zero();
    for (long i = 0; i < count; i += 8 * kUnit) {
#pragma GCC unroll 8
        for (int u = 0; u < 8; ++u) sums[u] = add(sums[u], load(data + i + u * kUnit));
    }
    for (int u = 1; u < 8; ++u) sums[0] = add(sums[0], sums[u]);
    return sum(sums[0]);
}

inline void update_probe(float* data, long count) {
    const Unit factor = broadcast(0.999f), offset = broadcast(0.001f);
    for (long i = 0; i < count; i += 8 * kUnit) {
#pragma GCC unroll 8
        for (int u = 0; u < 8; ++u) {
            store(data + i + u * kUnit, multiply_add(load(data + i + u * kUnit), factor, offset));
        }
    }
}

inline float multiply_add_probe(long rounds) {
    Unit sums[kProbeUnits];
    for (int u = 0; u < kProbeUnits; ++u) sums[u] = broadcast(static_cast<float>(u));
    const Unit factor = broadcast(0.999f), offset = broadcast(0.001f);
    for (long i = 0; i < rounds * (12 / kProbeUnits); ++i) {
#pragma GCC unroll 12
        for (int u = 0; u < kProbeUnits; ++u) sums[u] = multiply_add(sums[u], factor, offset);
    }
    for (int u = 1; u < kProbeUnits; ++u) sums[0] = add(sums[0], sums[u]);
    return sum(sums[0]);
}

constexpr Kernels table(const char* name) {
    return {name, advance, read_probe, update_probe, multiply_add_probe};
}

}  // namespace graphtide::GRAPHTIDE_ISA
