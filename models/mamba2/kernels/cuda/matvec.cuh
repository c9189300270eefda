// Rows of a matrix times a few vectors, by a block: the work of a rollout.
#pragma once

#include "arithmetic.cuh"

#if WEIGHT_BF16
using Weight = unsigned short;
#else
using Weight = float;
#endif

DEVICE constexpr int ceil_div(int a, int b) { return (a + b - 1) / b; }

// Weights of one load.
constexpr int kVector = 16 / static_cast<int>(sizeof(Weight));

// Lanes that share a row: as many as find a load each, as long as a block goes over all rows at most twice;
// models.mamba2.kernels.cuda.plan has the same rule.
DEVICE constexpr int row_lanes(int rows, int columns) {
    int lanes = 1;
    while (lanes < kWarp && 2 * lanes * kVector <= columns && rows * lanes <= THREADS) lanes *= 2;
    return lanes;
}

// Matrices lie as [pieces][kRows][lanes][kVector], so that a warp loads neighbouring words; lane l of a row has columns
// 4 l ... 4 l + 3 of every 4 * lanes of a piece, so that vectors are loaded likewise. Columns beyond the last are zero,
// in matrix and vectors.
template <int kRows, int kColumns, int kSeries>
struct RowProduct {
    static constexpr int lanes = row_lanes(kRows, kColumns);
    static constexpr int pieces = ceil_div(kColumns, lanes * kVector);
    static constexpr int length = pieces * lanes * kVector;
    static constexpr int weights = kRows * length;
    static constexpr int rows_at_once = THREADS / lanes;
    static constexpr int passes = ceil_div(kRows, rows_at_once);
    using Place = Scattered<kSeries, lanes>;
    static constexpr int kept = Place::kept;      // sums of a lane, of neighbouring series
    static constexpr int copies = Place::copies;  // lanes with the same sums

    int lane = threadIdx.x % lanes;

    DEVICE int row(int pass) const { return pass * rows_at_once + threadIdx.x / lanes; }
    DEVICE int series() const { return first_kept<kSeries, lanes / 2>(lane); }
    DEVICE int copy() const { return Place::copy(lane); }
    // Whether a whole warp has no row left.
    DEVICE bool idle(int pass) const {
        return pass * rows_at_once + static_cast<int>(threadIdx.x) / kWarp * (kWarp / lanes) >= kRows;
    }

    // sums[i] of row(pass) and series() + i; whole warps must come. Vectors lie `stride` floats apart.
    template <class Weights>
    DEVICE void multiply(int pass, Weights matrix, Shared<float> vectors, int stride, float (&sums)[kSeries]) const {
        float none[kSeries];
        accumulate<false>(pass, matrix, vectors, stride, sums, none);
        scatter_sums<kSeries, lanes / 2>(sums, lane);
    }

    // The same, and the sum of squares of those vectors.
    template <class Weights>
    DEVICE void multiply(int pass, Weights matrix, Shared<float> vectors, int stride, float (&sums)[kSeries],
                         float (&squares)[kSeries]) const {
        accumulate<true>(pass, matrix, vectors, stride, sums, squares);
        scatter_sums<kSeries, lanes / 2>(sums, lane);
        scatter_sums<kSeries, lanes / 2>(squares, lane);
    }

   private:
    template <bool kSquared, class Weights>
    DEVICE void accumulate(int pass, Weights matrix, Shared<float> vectors, int stride, float (&sums)[kSeries],
                           float (&squares)[kSeries]) const {
        const int clamped = min(row(pass), kRows - 1);
#pragma unroll
        for (int series = 0; series < kSeries; ++series) sums[series] = squares[series] = 0.0f;
#pragma unroll
        for (int piece = 0; piece < pieces; ++piece) {
            float weight[kVector];
            load16(weight, matrix, ((piece * kRows + clamped) * lanes + lane) * kVector);
#pragma unroll
            for (int series = 0; series < kSeries; ++series)
#pragma unroll
                for (int four = 0; four < kVector; four += 4) {
                    float value[4];
                    load_run<4>(value, vectors, series * stride + (piece * kVector + four) * lanes + 4 * lane);
#pragma unroll
                    for (int i = 0; i < 4; ++i) {
                        sums[series] = fmaf(weight[four + i], value[i], sums[series]);
                        if (kSquared) squares[series] = fmaf(value[i], value[i], squares[series]);
                    }
                }
        }
    }
};
