// Element functions and the sums over lanes of a warp. Sums have one fixed order each: products and additions are fused
// only where fmaf says so (the sources are compiled with contraction off), so that results do not depend on the caller.
#pragma once

#include "portability.cuh"

constexpr int kWarp = 32;

DEVICE float silu(float x) { return divide_fast(x, 1.0f + exp_fast(-x)); }

// As torch computes it: the identity above 20.
DEVICE float softplus(float x) { return x > 20.0f ? x : log1pf(expf(x)); }

DEVICE float step_size(float raw, float bias, float low, float high) {
    return fminf(fmaxf(softplus(raw + bias), low), high);
}

// COUNT consecutive floats, a multiple of 4, from an aligned place.
template <int COUNT>
DEVICE void load_run(float (&to)[COUNT], Shared<float> from, int index) {
#pragma unroll
    for (int i = 0; i < COUNT; i += 4) {
        const float4 four = load4(from, index + i);
        to[i] = four.x;
        to[i + 1] = four.y;
        to[i + 2] = four.z;
        to[i + 3] = four.w;
    }
}

// The sum of `value` over every group of LANES lanes, in all of them.
template <int LANES>
DEVICE float sum_over_lanes(float value) {
#pragma unroll
    for (int offset = LANES / 2; offset > 0; offset /= 2) value += shuffle_xor(value, offset);
    return value;
}

// Sum COUNT values over 2 * OFFSET lanes and leave the sums spread over the lanes: each lane keeps half of its values and
// gives the other half away until one is left. The pairs that are added do not depend on COUNT, nor do the bits of a sum.
template <int COUNT, int OFFSET>
DEVICE void scatter_sums(float* sums, int lane) {
    if constexpr (OFFSET > 0 && COUNT == 1) {
        sums[0] += shuffle_xor(sums[0], OFFSET);
        scatter_sums<1, OFFSET / 2>(sums, lane);
    } else if constexpr (OFFSET > 0) {
        constexpr int half = COUNT / 2;
        const bool upper = (lane & OFFSET) != 0;
#pragma unroll
        for (int value = 0; value < half; ++value) {
            const float kept = upper ? sums[value + half] : sums[value];
            const float given = upper ? sums[value] : sums[value + half];
            sums[value] = kept + shuffle_xor(given, OFFSET);
        }
        scatter_sums<half, OFFSET / 2>(sums, lane);
    }
}

// Which of COUNT sums a lane then keeps in sums[0].
template <int COUNT, int OFFSET>
DEVICE int first_kept(int lane) {
    if constexpr (OFFSET == 0 || COUNT == 1) {
        return 0;
    } else {
        return ((lane & OFFSET) != 0 ? COUNT / 2 : 0) + first_kept<COUNT / 2, OFFSET / 2>(lane);
    }
}

// How many sums a lane keeps, and which of several lanes with the same sums it is.
template <int COUNT, int LANES>
struct Scattered {
    static constexpr int kept = COUNT > LANES ? COUNT / LANES : 1;
    static constexpr int copies = LANES > COUNT ? LANES / COUNT : 1;
    DEVICE static int copy(int lane) { return lane & (copies - 1); }
};
