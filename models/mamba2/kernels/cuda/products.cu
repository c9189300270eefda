// The products of a prefill: a whole stack over a known sequence, one kernel a stage; rows are the steps of all series, series by
// series.
//
// Per layer: project_in, then convolve, add_chunks, pass_states and read_chunks of scan.cu, then project_out. Norms cost no kernel of
// their own: their weights are folded into the matrices, and the products sum the squares of what they read.
//
// Given by plan.py: WIDTH, GROUPS, GROUP_CHANNELS, INPUTS, OUTPUTS, WEIGHT_BF16, NORM_EPS, GEMM_SHARED_BYTES, and what gemm.cuh and
// layer_sizes.cuh name.
#include "gemm.cuh"
#include "layer_sizes.cuh"

#if WEIGHT_BF16
using Weight = unsigned short;
#else
using Weight = float;
#endif

static_assert(4 * kGemmSharedFloats == GEMM_SHARED_BYTES, "plan.py and the kernels lay shared memory out alike");

// stream[row] = weights inputs[row] + bias
#if INPUTS > 0
PAIRED_KERNEL(GEMM_THREADS) embed(const float* inputs, const Weight* weights, const float* bias, float* stream, long long rows) {
    multiply_tall<INPUTS, WIDTH, 1, 0>(
        rows, [&](size_t row, int k) { return inputs[row * INPUTS + k]; }, weights, 0.0f,
        [&](size_t row, int d, float sum) { stream[row * WIDTH + d] = sum + bias[d]; });
}
#else
PAIRED_KERNEL(GEMM_THREADS) embed(const float*, const Weight*, const float* bias, float* stream, long long rows) {
    for (int item = threadIdx.x; item < GEMM_ROWS * GEMM_COLUMNS; item += GEMM_THREADS) {
        const long long row = static_cast<long long>(blockIdx.x) * GEMM_ROWS + item / GEMM_COLUMNS;
        const int d = blockIdx.y * GEMM_COLUMNS + item % GEMM_COLUMNS;
        if (row < rows && d < WIDTH) stream[row * WIDTH + d] = bias[d];
    }
}
#endif

// projected[row] = weights norm(stream[row])
PAIRED_KERNEL(GEMM_THREADS) project_in(const float* stream, const Weight* weights, float* projected, long long rows) {
    multiply_tall<WIDTH, kProjectedWidth, 1, WIDTH>(
        rows, [&](size_t row, int k) { return stream[row * WIDTH + k]; }, weights, NORM_EPS,
        [&](size_t row, int n, float sum) { projected[row * kProjectedWidth + n] = sum; });
}

// stream[row] += weights norm(y[row] silu(z[row])), the norm in GROUPS parts
KERNEL(GEMM_THREADS) project_out(const float* outputs, const float* projected, const Weight* weights, float* stream,
                                 long long rows) {
    multiply_tall<INNER, WIDTH, GROUPS, GROUP_CHANNELS>(
        rows,
        [&](size_t row, int k) { return outputs[row * INNER + k] * silu(projected[row * kProjectedWidth + k]); },
        weights, NORM_EPS, [&](size_t row, int d, float sum) { stream[row * WIDTH + d] += sum; });
}

// outputs[row] = weights norm(stream[row]) + bias
PAIRED_KERNEL(GEMM_THREADS) read_out(const float* stream, const Weight* weights, const float* bias, float* outputs,
                              long long rows) {
    multiply_tall<WIDTH, OUTPUTS, 1, WIDTH>(
        rows, [&](size_t row, int k) { return stream[row * WIDTH + k]; }, weights, NORM_EPS,
        [&](size_t row, int r, float sum) { outputs[row * OUTPUTS + r] = sum + bias[r]; });
}
