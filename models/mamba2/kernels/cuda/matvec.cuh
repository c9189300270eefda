// Rows of a matrix times a few vectors, by a block: the work of a rollout.
#pragma once

#include "arithmetic.cuh"

// Lanes that share a row of `inner` columns, 4 columns a lane and load; models.mamba2.kernels.cuda.plan has the same rule.
DEVICE constexpr int row_lanes(int inner) {
    int lanes = 1;
    while (lanes < kWarp && lanes * 8 <= inner) lanes *= 2;
    return lanes;
}

// The length of a row in memory; the columns beyond `inner` are zero, in matrix and vectors.
DEVICE constexpr int row_length(int inner) {
    const int unit = 4 * row_lanes(inner);
    return (inner + unit - 1) / unit * unit;
}

// Rows that a lane sums at a time: as many as the registers hold and leave every warp some.
DEVICE constexpr int rows_at_once(int rows, int inner, int series, int warps) {
    int tile = 1;
    const int most = series < 4 ? 8 : 2;
    const int groups = kWarp / row_lanes(inner);
    while (tile < most && groups * tile * 2 * warps <= rows) tile *= 2;
    return tile;
}

// emit(row, series, sum over k of matrix[row][k] * vectors[series][k]), once per row and series, by some thread.
// Vectors lie `stride` floats apart. Weights are global or shared, float or bfloat16. All threads must come.
template <int kRows, int kColumns, int kSeries, int kWarpCount, class Weights, class Emit>
DEVICE void multiply_rows(Weights matrix, Shared<float> vectors, int stride, Emit emit) {
    constexpr int lanes = row_lanes(kColumns);
    constexpr int length = row_length(kColumns);
    constexpr int pieces = length / (4 * lanes);
    constexpr int groups = kWarp / lanes;
    constexpr int tile = rows_at_once(kRows, kColumns, kSeries, kWarpCount);
    constexpr int count = tile * kSeries;
    const int warp = threadIdx.x / kWarp;
    const int group = threadIdx.x % kWarp / lanes;
    const int lane = threadIdx.x % lanes;

    float4 vector[kSeries][pieces];
#pragma unroll
    for (int series = 0; series < kSeries; ++series)
#pragma unroll
        for (int piece = 0; piece < pieces; ++piece)
            vector[series][piece] = load4(vectors, series * stride + (piece * lanes + lane) * 4);

    for (int first = warp * groups * tile; first < kRows; first += kWarpCount * groups * tile) {
        float sums[count] = {};
#pragma unroll
        for (int slot = 0; slot < tile; ++slot) {
            const int row = min(first + slot * groups + group, kRows - 1);
#pragma unroll
            for (int piece = 0; piece < pieces; ++piece) {
                const float4 weight = load4(matrix, row * length + (piece * lanes + lane) * 4);
#pragma unroll
                for (int series = 0; series < kSeries; ++series) {
                    const float4 value = vector[series][piece];
                    float& sum = sums[slot * kSeries + series];
                    sum = fmaf(weight.x, value.x, sum);
                    sum = fmaf(weight.y, value.y, sum);
                    sum = fmaf(weight.z, value.z, sum);
                    sum = fmaf(weight.w, value.w, sum);
                }
            }
        }
        using Place = Scattered<count, lanes>;
        const int index = scatter_sums<count, lanes / 2>(sums, lane);
        if (Place::speaks(lane)) {
#pragma unroll
            for (int kept = 0; kept < Place::kept; ++kept) {
                const int row = first + (index + kept) / kSeries * groups + group;
                if (row < kRows) emit(row, (index + kept) % kSeries, sums[kept]);
            }
        }
    }
}
