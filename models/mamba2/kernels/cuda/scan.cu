// What lies between the products of a prefill layer (products.cu): the convolution and the chunked scan. A file of its own, so that
// both compile at once.
//
// Given by plan.py: TAPS, STEP_LOW, STEP_HIGH, CONV_THREADS, CONV_RUN, ADD_SHARED_BYTES, READ_SHARED_BYTES, and what scan.cuh names.
#include "scan.cuh"

static_assert(4 * kAddSharedFloats == ADD_SHARED_BYTES, "plan.py and the kernels lay shared memory out alike");
static_assert(4 * kReadSharedFloats == READ_SHARED_BYTES, "plan.py and the kernels lay shared memory out alike");

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
