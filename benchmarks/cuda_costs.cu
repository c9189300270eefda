// What the steps of a rollout pay beside arithmetic: barriers and exchanges, many times over in one launch.
#include "portability.cuh"

constexpr int kThreads = 512;

#if CLUSTER > 1
#define COST_KERNEL CLUSTER_KERNEL(kThreads, CLUSTER)
#else
#define COST_KERNEL KERNEL(kThreads)
#endif

COST_KERNEL block_barriers(float* out, int count) {
    const Shared<float> words = shared_memory<float>(0);
    words[threadIdx.x] = out[threadIdx.x];
    for (int i = 0; i < count; ++i) block_barrier();
    out[threadIdx.x] = words[kThreads - 1 - threadIdx.x];
}

COST_KERNEL cluster_barriers(float* out, int count) {
    const Shared<float> words = shared_memory<float>(0);
    words[threadIdx.x] = out[threadIdx.x];
    for (int i = 0; i < count; ++i) cluster_barrier();
    out[threadIdx.x] = words[kThreads - 1 - threadIdx.x];
}

// Every block sends 128 numbers to all blocks, as out_proj does, and adds up what came; two buffers by turns.
COST_KERNEL exchanges(float* out, int count) {
    const Shared<float> words = shared_memory<float>(0);
    const int index = threadIdx.x % 128, first = threadIdx.x / 128;
    float value = out[index];
    for (int i = 0; i < count; ++i) {
        const int buffer = i % 2 * CLUSTER * 128;
        for (int rank = first; rank < CLUSTER; rank += kThreads / 128)
            store_remote(words, buffer + cluster_rank() * 128 + index, rank, value);
        cluster_barrier();
        value = 0.0f;
        for (int rank = 0; rank < CLUSTER; ++rank) value += words[buffer + rank * 128 + index];
        value *= 1.0f / CLUSTER;
    }
    out[index] = value;
    // No block may leave while others may still store into it.
    cluster_barrier();
}
