// Products of float32 on tensor cores, whose operands have 11 significant bits: each is split into two, and of the four
// products the least is left out, so that about 22 bits remain (Markidis et al. 2018, "NVIDIA Tensor Core Programmability,
// Performance and Precision"). What one pair of rows gives does not depend on the others.
#pragma once

#include "arithmetic.cuh"

// `high` is rounded to 11 bits; the instruction looks at no more of `low`.
struct SplitFloat {
    float high, low;
    DEVICE explicit SplitFloat(float value) : high(bits_to_float((float_to_bits(value) + 0x1000u) & 0xffffe000u)) {
        low = value - high;
    }
};

// A warp's tile of DOWN x 16 rows and ACROSS x 8 columns.
template <int DOWN, int ACROSS>
struct WarpTile {
    float sums[DOWN][ACROSS][4];

    DEVICE void clear() {
#pragma unroll
        for (int i = 0; i < DOWN; ++i)
#pragma unroll
            for (int j = 0; j < ACROSS; ++j)
#pragma unroll
                for (int k = 0; k < 4; ++k) sums[i][j][k] = 0.0f;
    }

    // sums += a b for eight neighbouring k; a(row, k) and b(k, column) are asked for rows and columns of the tile, k < 8.
    // `across` columns of tiles are wanted, the others left alone.
    template <bool kExactRight, class Left, class Right>
    DEVICE void add(int across, Left a, Right b) {
        const int row = threadIdx.x % kWarp / 4, k = threadIdx.x % 4;
        float high[DOWN][4], low[DOWN][4];
#pragma unroll
        for (int i = 0; i < DOWN; ++i)
#pragma unroll
            for (int part = 0; part < 4; ++part) {
                const SplitFloat value(a(16 * i + row + part % 2 * 8, k + part / 2 * 4));
                high[i][part] = value.high;
                low[i][part] = value.low;
            }
#pragma unroll
        for (int j = 0; j < ACROSS; ++j) {
            if (j >= across) continue;
            const SplitFloat first(b(k, 8 * j + row)), second(b(k + 4, 8 * j + row));
#pragma unroll
            for (int i = 0; i < DOWN; ++i) {
                multiply_tile(sums[i][j], low[i], first.high, second.high);
                if (!kExactRight) multiply_tile(sums[i][j], high[i], first.low, second.low);
                multiply_tile(sums[i][j], high[i], first.high, second.high);
            }
        }
    }

    // sums += other, times scale(row).
    template <class Scale>
    DEVICE void add_scaled(const WarpTile& other, Scale scale) {
        const int row = threadIdx.x % kWarp / 4;
#pragma unroll
        for (int i = 0; i < DOWN; ++i)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const float factor = scale(16 * i + row + 8 * half);
#pragma unroll
                for (int j = 0; j < ACROSS; ++j)
#pragma unroll
                    for (int k = 2 * half; k < 2 * half + 2; ++k)
                        sums[i][j][k] = fmaf(other.sums[i][j][k], factor, sums[i][j][k]);
            }
    }

    // each(row, column, sum) of the tile, all in the lane that has the sum.
    template <class Each>
    DEVICE void go(Each each) {
        const int row = threadIdx.x % kWarp / 4, column = threadIdx.x % 4 * 2;
#pragma unroll
        for (int i = 0; i < DOWN; ++i)
#pragma unroll
            for (int j = 0; j < ACROSS; ++j)
#pragma unroll
                for (int k = 0; k < 4; ++k) each(16 * i + row + k / 2 * 8, 8 * j + column + k % 2, sums[i][j][k]);
    }
};
