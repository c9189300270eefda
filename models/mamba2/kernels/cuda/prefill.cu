// A whole stack over a known sequence, one kernel a stage; rows are the steps of all series, series by series.
//
// Per layer: project_in, convolve, add_chunks, pass_states, read_chunks, project_out. Norms cost no kernel of their own:
// their weights are folded into the matrices, and the products sum the squares of what they read.
//
// Given by plan.py: WIDTH, INNER, STATES, HEAD_CHANNELS, GROUPS, GROUP_CHANNELS, TAPS, INPUTS, OUTPUTS, WEIGHT_BF16, NORM_EPS, STEP_LOW,
// STEP_HIGH, CONV_THREADS, CONV_RUN, GEMM_SHARED_BYTES, ADD_SHARED_BYTES, READ_SHARED_BYTES, and what gemm.cuh and
// scan.cuh name.
#include "gemm.cuh"
#include "scan.cuh"

#if WEIGHT_BF16
using Weight = unsigned short;
#else
using Weight = float;
#endif

static_assert(4 * kGemmSharedFloats == GEMM_SHARED_BYTES, "plan.py and the kernels lay shared memory out alike");
static_assert(4 * kAddSharedFloats == ADD_SHARED_BYTES, "plan.py and the kernels lay shared memory out alike");
static_assert(4 * kReadSharedFloats == READ_SHARED_BYTES, "plan.py and the kernels lay shared memory out alike");

constexpr int kProjectedWidth = INNER + kConvWidth + kHeadsOfLayer;  // z, x, B, C, dt

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

// channels = silu(causal convolution of x, B, C), steps = dt; a block has CONV_RUN steps of a series, a thread a channel.
// windows_in, windows_out [batch][kConvWidth][TAPS - 1] must not be the same memory.
KERNEL(CONV_THREADS) convolve(const float* projected, const float* taps, const float* bias, const float* step_bias,
                              const float* windows_in, float* windows_out, float* channels, float* steps, int length) {
    const int runs = (length + CONV_RUN - 1) / CONV_RUN;
    const int series = blockIdx.x / runs, first = blockIdx.x % runs * CONV_RUN;
    const int end = min(first + CONV_RUN, length);
    const size_t row0 = static_cast<size_t>(series) * length;
    for (int channel = threadIdx.x; channel < kConvWidth + kHeadsOfLayer; channel += CONV_THREADS) {
        const float* column = projected + row0 * kProjectedWidth + INNER + channel;
        if (channel >= kConvWidth) {
            const int head = channel - kConvWidth;
            for (int step = first; step < end; ++step)
                steps[(row0 + step) * kHeadsOfLayer + head] = step_size(
                    column[static_cast<size_t>(step) * kProjectedWidth], step_bias[head], STEP_LOW, STEP_HIGH);
            continue;
        }
        const size_t window = (static_cast<size_t>(series) * kConvWidth + channel) * (TAPS - 1);
        // What the convolution saw at `step`, which may lie before the call.
        const auto seen = [&](int step) {
            return step < 0 ? windows_in[window + TAPS - 1 + step] : column[static_cast<size_t>(step) * kProjectedWidth];
        };
        float weights[TAPS], recent[TAPS];
#pragma unroll
        for (int tap = 0; tap < TAPS; ++tap) weights[tap] = taps[channel * TAPS + tap];
#pragma unroll
        for (int tap = 1; tap < TAPS; ++tap) recent[tap] = seen(first - TAPS + tap);
        for (int step = first; step < end; ++step) {
#pragma unroll
            for (int tap = 1; tap < TAPS; ++tap) recent[tap - 1] = recent[tap];
            recent[TAPS - 1] = seen(step);
            float sum = bias[channel];
#pragma unroll
            for (int tap = 0; tap < TAPS; ++tap) sum = fmaf(weights[tap], recent[tap], sum);
            channels[(row0 + step) * kConvWidth + channel] = silu(sum);
        }
        if (end == length)
#pragma unroll
            for (int tap = 0; tap < TAPS - 1; ++tap) windows_out[window + tap] = seen(length - TAPS + 1 + tap);
    }
}

PAIRED_KERNEL(SCAN_THREADS) add_chunks(const float* channels, const float* steps, const float* rates, float* added, float* kept,
                                int length) {
    add_chunk(channels, steps, rates, added, kept, length);
}

KERNEL(SCAN_THREADS) pass_states(float* states, const float* kept, const float* first, float* last, int chunks,
                                 int batch) {
    pass_state(states, kept, first, last, chunks, batch);
}

PAIRED_KERNEL(SCAN_THREADS) read_chunks(const float* channels, const float* steps, const float* rates, const float* skips,
                                 const float* states, float* outputs, int length) {
    read_chunk(channels, steps, rates, skips, states, outputs, length);
}
