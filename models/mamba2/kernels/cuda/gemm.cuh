// Tall matrix products of prefill: out[m][n] = sum over k of a(m, k) weights[n][k], on tensor cores to about 22 bits.
//
// The sum of one output runs over k in rising order, whatever the number of rows: a series gets the same bits alone or
// among others, which a library that picks its kernel by the shape does not promise.
#pragma once

#include "tiles.cuh"

// Given by plan.py: GEMM_ROWS and GEMM_COLUMNS of a block's tile, GEMM_DEPTH columns of A at a time, GEMM_WARP_ROWS and
// GEMM_WARP_COLUMNS of a warp's tile, GEMM_THREADS.
constexpr int kTileStride = GEMM_DEPTH + 4;  // what the lanes of a fragment read lies in as many banks
constexpr int kWarpsDown = GEMM_ROWS / GEMM_WARP_ROWS;
constexpr int kGemmSharedFloats = (GEMM_ROWS + GEMM_COLUMNS) * kTileStride + GEMM_ROWS;
static_assert(kWarpsDown * (GEMM_COLUMNS / GEMM_WARP_COLUMNS) * kWarp == GEMM_THREADS, "a warp has one tile");
static_assert(GEMM_THREADS % GEMM_DEPTH == 0 && kWarp % GEMM_DEPTH == 0, "lanes of a row lie in one warp");
static_assert(GEMM_WARP_ROWS % 16 == 0 && GEMM_WARP_COLUMNS % 8 == 0 && GEMM_DEPTH % 8 == 0, "whole fragments");
using GemmTile = WarpTile<GEMM_WARP_ROWS / 16, GEMM_WARP_COLUMNS / 8>;

DEVICE float weight_at(const float* weights, size_t index) { return weights[index]; }
DEVICE float weight_at(const unsigned short* weights, size_t index) {
    return bits_to_float(static_cast<unsigned>(weights[index]) << 16);
}

// Columns come in PARTS equal parts; each part's sum is divided by the root mean square of its columns of a, of which
// NORMED are not filling; with NORMED = 0, by nothing.
// a(row, column) is asked within bounds only; emit(row, column, value) likewise.
template <int INNER_SIZE, int OUTER_SIZE, int PARTS, int NORMED, class Stored, class Source, class Emit>
DEVICE void multiply_tall(size_t rows, Source a, const Stored* weights, float eps, Emit emit) {
    constexpr int part_columns = INNER_SIZE / PARTS;
    constexpr int rows_apart = GEMM_THREADS / GEMM_DEPTH;
    constexpr int a_loads = (GEMM_ROWS + rows_apart - 1) / rows_apart;
    constexpr int w_loads = (GEMM_COLUMNS + rows_apart - 1) / rows_apart;
    const Shared<float> a_tile = shared_memory<float>(0);
    const Shared<float> w_tile = a_tile + GEMM_ROWS * kTileStride;
    const Shared<float> scales = w_tile + GEMM_COLUMNS * kTileStride;
    const size_t first_row = static_cast<size_t>(blockIdx.x) * GEMM_ROWS;
    const int first_column = blockIdx.y * GEMM_COLUMNS;
    const int depth = threadIdx.x % GEMM_DEPTH, row_slot = threadIdx.x / GEMM_DEPTH;
    const int warp = threadIdx.x / kWarp;
    const int row0 = warp % kWarpsDown * GEMM_WARP_ROWS;
    const int column0 = warp / kWarpsDown * GEMM_WARP_COLUMNS;

    GemmTile total, sum;
    total.clear();
    for (int part = 0; part < PARTS; ++part) {
        sum.clear();
        float squares[a_loads] = {};
        float a_next[a_loads], w_next[w_loads];
        // Into registers first, so that the loads of one tile run beside the sums of the one before.
        const auto fetch = [&](int start) {
            const int inside = start + depth, k = part * part_columns + inside;
#pragma unroll
            for (int load = 0; load < a_loads; ++load) {
                const size_t row = first_row + load * rows_apart + row_slot;
                a_next[load] = inside < part_columns && row < rows ? a(row, k) : 0.0f;
            }
#pragma unroll
            for (int load = 0; load < w_loads; ++load) {
                const int column = first_column + load * rows_apart + row_slot;
                w_next[load] = inside < part_columns && column < OUTER_SIZE
                                   ? weight_at(weights, static_cast<size_t>(column) * INNER_SIZE + k)
                                   : 0.0f;
            }
        };
        fetch(0);
        for (int start = 0; start < part_columns; start += GEMM_DEPTH) {
#pragma unroll
            for (int load = 0; load < a_loads; ++load) {
                const int row = load * rows_apart + row_slot;
                if (row < GEMM_ROWS) a_tile[row * kTileStride + depth] = a_next[load];
                squares[load] = fmaf(a_next[load], a_next[load], squares[load]);
            }
#pragma unroll
            for (int load = 0; load < w_loads; ++load) {
                const int column = load * rows_apart + row_slot;
                if (column < GEMM_COLUMNS) w_tile[column * kTileStride + depth] = w_next[load];
            }
            block_barrier();
            if (start + GEMM_DEPTH < part_columns) fetch(start + GEMM_DEPTH);
#pragma unroll
            for (int k0 = 0; k0 < GEMM_DEPTH; k0 += 8)
                sum.add<sizeof(Stored) == 2>(
                    GEMM_WARP_COLUMNS / 8,
                    [&](int row, int k) { return static_cast<float>(a_tile[(row0 + row) * kTileStride + k0 + k]); },
                    [&](int k, int column) {
                        return static_cast<float>(w_tile[(column0 + column) * kTileStride + k0 + k]);
                    });
            block_barrier();
        }
        if constexpr (NORMED > 0) {
#pragma unroll
            for (int load = 0; load < a_loads; ++load) {
                const float all = sum_over_lanes<GEMM_DEPTH>(squares[load]);
                const int row = load * rows_apart + row_slot;
                if (depth == 0 && row < GEMM_ROWS) scales[row] = rsqrtf(all / NORMED + eps);
            }
            block_barrier();
        }
        total.add_scaled(sum, [&](int row) { return NORMED > 0 ? static_cast<float>(scales[row0 + row]) : 1.0f; });
    }
    total.go([&](int row, int column, float value) {
        const size_t to = first_row + row0 + row;
        const int at = first_column + column0 + column;
        if (to < rows && at < OUTER_SIZE) emit(to, at, value);
    });
}
