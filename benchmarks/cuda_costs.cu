// What the steps of a rollout pay beside arithmetic: barriers and exchanges, many times over in one launch.
#include "portability.cuh"

constexpr int kThreads = 512;
// Four buffers by turns, each with its counter; what a block sends to each block is WORDS numbers.
constexpr int kBuffers = 4, kCounterBytes = 8 * kBuffers;

#if CLUSTER > 1
#define COST_KERNEL CLUSTER_KERNEL(kThreads, CLUSTER)
#else
#define COST_KERNEL KERNEL(kThreads)
#endif

COST_KERNEL block_barriers(float* out, int count) {
    const Shared<float> words = shared_memory<float>(kCounterBytes);
    words[threadIdx.x] = out[threadIdx.x];
    for (int i = 0; i < count; ++i) block_barrier();
    out[threadIdx.x] = words[kThreads - 1 - threadIdx.x];
}

COST_KERNEL cluster_barriers(float* out, int count) {
    const Shared<float> words = shared_memory<float>(kCounterBytes);
    words[threadIdx.x] = out[threadIdx.x];
    for (int i = 0; i < count; ++i) cluster_barrier();
    out[threadIdx.x] = words[kThreads - 1 - threadIdx.x];
}

// Every block sends its numbers to all blocks and adds up what came; send(index, rank, value, buffer), wait(buffer, turn).
template <class Send, class Wait>
DEVICE void exchange(float* out, int count, Send send, Wait wait) {
    const Shared<float> words = shared_memory<float>(kCounterBytes);
    const int index = threadIdx.x % WORDS, first = threadIdx.x / WORDS;
    float value = out[threadIdx.x];
    for (int i = 0; i < count; ++i) {
        const int buffer = i % kBuffers;
        for (int rank = first; rank < CLUSTER; rank += kThreads / WORDS)
            send((buffer * CLUSTER + cluster_rank()) * WORDS + index, rank, value, buffer);
        wait(buffer, i / kBuffers);
        value = 0.0f;
        for (int rank = 0; rank < CLUSTER; ++rank) value += words[(buffer * CLUSTER + rank) * WORDS + index];
        value *= 1.0f / CLUSTER;
        block_barrier();
    }
    out[threadIdx.x] = value;
    // No block may leave while others may still store into it.
    cluster_barrier();
}

COST_KERNEL barrier_exchanges(float* out, int count) {
    const Shared<float> words = shared_memory<float>(kCounterBytes);
    exchange(
        out, count, [&](int index, int rank, float value, int) { store_remote(words, index, rank, value); },
        [](int, int) { cluster_barrier(); });
}

#if CLUSTER > 1
COST_KERNEL counted_exchanges(float* out, int count) {
    const Shared<float> words = shared_memory<float>(kCounterBytes);
    if (threadIdx.x == 0)
        for (int buffer = 0; buffer < kBuffers; ++buffer) {
            prepare_arrivals({8 * buffer});
            expect_arrivals({8 * buffer}, 4 * CLUSTER * WORDS);
        }
    cluster_barrier();
    exchange(
        out, count,
        [&](int index, int rank, float value, int buffer) {
            store_remote(words, index, rank, value, Arrivals{8 * buffer});
        },
        [](int buffer, int turn) {
            wait_arrivals({8 * buffer}, turn % 2);
            if (threadIdx.x == 0) expect_arrivals({8 * buffer}, 4 * CLUSTER * WORDS);
        });
}
#endif
