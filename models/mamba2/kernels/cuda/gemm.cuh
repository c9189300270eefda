// Tall matrix products of prefill: out[m][n] = sum over k of a(m, k) weights[n][k], in float32 on the ordinary cores.
//
// The sum of one output runs over k in rising order in one thread, whatever the number of rows: a series gets the same
// bits alone or among others, which a library that picks its kernel by the shape does not promise.
#pragma once

#include "arithmetic.cuh"

// Given by plan.py: GEMM_ROWS and GEMM_COLUMNS of a block's tile, GEMM_DEPTH columns of A at a time, GEMM_THREAD_ROWS and
// GEMM_THREAD_COLUMNS of a thread's tile, GEMM_THREADS.
constexpr int kTileStride = GEMM_ROWS + 4;
constexpr int kWeightStride = GEMM_COLUMNS + 4;
constexpr int kThreadsDown = GEMM_ROWS / GEMM_THREAD_ROWS;
constexpr int kGemmSharedFloats = GEMM_DEPTH * (kTileStride + kWeightStride) + GEMM_ROWS;
static_assert(kThreadsDown * (GEMM_COLUMNS / GEMM_THREAD_COLUMNS) == GEMM_THREADS, "a thread has one tile");
static_assert(GEMM_THREADS % GEMM_DEPTH == 0 && kWarp % GEMM_DEPTH == 0, "lanes of a row lie in one warp");
static_assert(GEMM_THREAD_ROWS % 4 == 0 && GEMM_THREAD_COLUMNS % 4 == 0, "tiles are read four wide");

DEVICE float weight_at(const float* weights, size_t index) { return weights[index]; }
DEVICE float weight_at(const unsigned short* weights, size_t index) {
    return bits_to_float(static_cast<unsigned>(weights[index]) << 16);
}

// Columns come in PARTS equal parts; each part's sum is divided by the root mean square of its columns of a, of which
// NORMED are not filling; with NORMED = 0, by nothing.
// a(row, column) is asked within bounds only; emit(row, column, value) likewise.
template <int INNER_SIZE, int OUTER_SIZE, int PARTS, int NORMED, class Weights, class Source, class Emit>
DEVICE void multiply_tall(size_t rows, Source a, Weights weights, float eps, Emit emit) {
    constexpr int part_columns = INNER_SIZE / PARTS;
    constexpr int rows_apart = GEMM_THREADS / GEMM_DEPTH;
    constexpr int a_loads = (GEMM_ROWS + rows_apart - 1) / rows_apart;
    constexpr int w_loads = (GEMM_COLUMNS + rows_apart - 1) / rows_apart;
    const Shared<float> a_tile = shared_memory<float>(0);
    const Shared<float> w_tile = a_tile + GEMM_DEPTH * kTileStride;
    const Shared<float> scales = w_tile + GEMM_DEPTH * kWeightStride;
    const size_t first_row = static_cast<size_t>(blockIdx.x) * GEMM_ROWS;
    const int first_column = blockIdx.y * GEMM_COLUMNS;
    const int depth = threadIdx.x % GEMM_DEPTH, row_slot = threadIdx.x / GEMM_DEPTH;
    const int row0 = threadIdx.x % kThreadsDown * GEMM_THREAD_ROWS;
    const int column0 = threadIdx.x / kThreadsDown * GEMM_THREAD_COLUMNS;

    float total[GEMM_THREAD_ROWS][GEMM_THREAD_COLUMNS] = {};
    for (int part = 0; part < PARTS; ++part) {
        float sum[GEMM_THREAD_ROWS][GEMM_THREAD_COLUMNS] = {};
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
                if (row < GEMM_ROWS) a_tile[depth * kTileStride + row] = a_next[load];
                squares[load] = fmaf(a_next[load], a_next[load], squares[load]);
            }
#pragma unroll
            for (int load = 0; load < w_loads; ++load) {
                const int column = load * rows_apart + row_slot;
                if (column < GEMM_COLUMNS) w_tile[depth * kWeightStride + column] = w_next[load];
            }
            block_barrier();
            if (start + GEMM_DEPTH < part_columns) fetch(start + GEMM_DEPTH);
#pragma unroll 4
            for (int k = 0; k < GEMM_DEPTH; ++k) {
                float left[GEMM_THREAD_ROWS], right[GEMM_THREAD_COLUMNS];
                load_run<GEMM_THREAD_ROWS>(left, a_tile, k * kTileStride + row0);
                load_run<GEMM_THREAD_COLUMNS>(right, w_tile, k * kWeightStride + column0);
#pragma unroll
                for (int i = 0; i < GEMM_THREAD_ROWS; ++i)
#pragma unroll
                    for (int j = 0; j < GEMM_THREAD_COLUMNS; ++j) sum[i][j] = fmaf(left[i], right[j], sum[i][j]);
            }
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
#pragma unroll
        for (int i = 0; i < GEMM_THREAD_ROWS; ++i) {
            const float scale = NORMED > 0 ? static_cast<float>(scales[row0 + i]) : 1.0f;
#pragma unroll
            for (int j = 0; j < GEMM_THREAD_COLUMNS; ++j)
                total[i][j] = PARTS == 1 ? sum[i][j] * scale : fmaf(sum[i][j], scale, total[i][j]);
        }
    }
#pragma unroll
    for (int i = 0; i < GEMM_THREAD_ROWS; ++i)
#pragma unroll
        for (int j = 0; j < GEMM_THREAD_COLUMNS; ++j)
            if (first_row + row0 + i < rows && first_column + column0 + j < OUTER_SIZE)
                emit(first_row + row0 + i, first_column + column0 + j, total[i][j]);
}
