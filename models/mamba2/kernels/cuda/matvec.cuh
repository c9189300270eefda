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
// models.mamba2.kernels.cuda.rollout_plan has the same rule.
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
    static constexpr int copies = Place::copies;  // lanes with the same sums

    // each(row, series, copy, sum, squares of the vector if kSquared), for every row and series by all lanes that have
    // the sum; whole warps must come, and have rows beyond the last as well. Vectors lie `stride` floats apart.
    template <bool kSquared, class Weights, class Each>
    DEVICE static void go(Weights matrix, Shared<float> vectors, int stride, Each each) {
        const int lane = threadIdx.x % lanes;
        const int first = first_kept<kSeries, lanes / 2>(lane);
#pragma unroll 1
        for (int pass = 0; pass < passes; ++pass) {
            const int row = pass * rows_at_once + threadIdx.x / lanes;
            // A whole warp may have no row left.
            if (pass * rows_at_once + static_cast<int>(threadIdx.x) / kWarp * (kWarp / lanes) >= kRows) break;
            float sums[kSeries], squares[kSeries];
            accumulate<kSquared>(min(row, kRows - 1), lane, matrix, vectors, stride, sums, squares);
            scatter_sums<kSeries, lanes / 2>(sums, lane);
            if (kSquared) scatter_sums<kSeries, lanes / 2>(squares, lane);
#pragma unroll
            for (int kept = 0; kept < Place::kept; ++kept)
                each(row, first + kept, Place::copy(lane), sums[kept], squares[kept]);
        }
    }

   private:
    template <bool kSquared, class Weights>
    DEVICE static void accumulate(int row, int lane, Weights matrix, Shared<float> vectors, int stride,
                                  float (&sums)[kSeries], float (&squares)[kSeries]) {
#pragma unroll
        for (int series = 0; series < kSeries; ++series) sums[series] = squares[series] = 0.0f;
#pragma unroll
        for (int piece = 0; piece < pieces; ++piece) {
            float weight[kVector];
            load16(weight, matrix, ((piece * kRows + row) * lanes + lane) * kVector);
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

#if WEIGHT_BF16

// The same on tensor cores, for weights in bfloat16 and up to four series. A tile is 16 rows by 16 columns, and eight
// vectors stand beside it: of every series the upper halves of its numbers and what they leave, each as often as there is
// room. So activations keep 16 significant bits, and a sum has the same bits whatever the number of series.
//
// Tiles lie as [tiles of rows][tiles of columns][lanes][8], a lane's weights as the instruction wants them, but for the
// order of the columns: lane l has columns 4 (l % 4) ... + 3, in rows l / 4 and l / 4 + 8.
template <int kRows, int kColumns, int kSeries>
struct TileProduct {
    static_assert(kSeries == 1 || kSeries == 2 || kSeries == 4, "eight vectors, two of each series");
    static constexpr int tiles = ceil_div(kRows, 16);
    static constexpr int depth = ceil_div(kColumns, 16);
    static constexpr int length = 16 * depth;
    static constexpr int weights = 16 * tiles * length;
    static constexpr int copies = 4 / kSeries;

    // As RowProduct's.
    template <bool kSquared, class Weights, class Each>
    DEVICE static void go(Weights matrix, Shared<float> vectors, int stride, Each each) {
        const int lane = threadIdx.x % kWarp;
        // Which vector this lane hands to the instruction, and which sums it gets.
        const int from = (lane / 8 * kSeries / 4) * stride + lane % 4 * 4;
        const float left = lane / 4 % 2 == 0 ? 0.0f : -1.0f;
        const int series = lane % 4 * kSeries / 4, copy = lane % 4 % copies;
#pragma unroll 1
        for (int tile = threadIdx.x / kWarp; tile < tiles; tile += THREADS / kWarp) {
            float sums[2][4] = {};
            float squares = 0.0f;
#pragma unroll
            for (int k = 0; k < depth; ++k) {
                unsigned weight[4];
                load_pairs(weight, matrix, ((tile * depth + k) * kWarp + lane) * 8);
                float x[4];
                load_run<4>(x, vectors, from + 16 * k);
                multiply_tile(sums[k % 2], weight, halves(x[0], x[1], left), halves(x[2], x[3], left));
                if (kSquared)
#pragma unroll
                    for (int i = 0; i < 4; ++i) squares = fmaf(x[i], x[i], squares);
            }
            if (kSquared) squares = shuffle(sum_over_lanes<4>(squares), lane % 4 * 8);
            const int row = 16 * tile + lane / 4;
            each(row, series, copy, (sums[0][0] + sums[1][0]) + (sums[0][1] + sums[1][1]), squares);
            each(row + 8, series, copy, (sums[0][2] + sums[1][2]) + (sums[0][3] + sums[1][3]), squares);
        }
    }

   private:
    // Two numbers rounded to bfloat16 where left = 0, what that leaves of them where it is -1.
    DEVICE static unsigned halves(float a, float b, float left) {
        const unsigned upper = round_pair(a, b);
        return round_pair(fmaf(bits_to_float(upper << 16), left, a), fmaf(bits_to_float(upper & 0xffff0000u), left, b));
    }
};

template <int kRows, int kColumns, int kSeries>
using LayerProduct = TileProduct<kRows, kColumns, kSeries>;
#else
template <int kRows, int kColumns, int kSeries>
using LayerProduct = RowProduct<kRows, kColumns, kSeries>;
#endif
