// All that the kernels know of the machine they run on: a GPU, through inline PTX and no header, or the emulator of the
// tests. Both offer the same few names.
#pragma once

#ifdef GRAPHTIDE_EMULATED
#include "cuda_emulator.h"
#else

#define DEVICE __device__ __forceinline__
#define KERNEL(threads) extern "C" __global__ void __launch_bounds__(threads, 1)
#define CLUSTER_KERNEL(threads, blocks) \
    extern "C" __global__ void __cluster_dims__(blocks, 1, 1) __launch_bounds__(threads, 1)

// Shared memory is seen through this name only, so that the emulator can watch every access.
template <class T>
using Shared = T*;

// The block's dynamic shared memory from byte `offset` on.
template <class T>
DEVICE Shared<T> shared_memory(int offset) {
    extern __shared__ float4 dynamic_shared_memory[];
    return reinterpret_cast<T*>(reinterpret_cast<char*>(dynamic_shared_memory) + offset);
}

DEVICE void block_barrier() { __syncthreads(); }

DEVICE float shuffle(float value, int lane) { return __shfl_sync(0xffffffffu, value, lane); }
DEVICE float shuffle_xor(float value, int mask) { return __shfl_xor_sync(0xffffffffu, value, mask); }

// A word of host memory that the host may change while the kernel runs, and one that it may read.
DEVICE int read_host(const int* word) {
    int value;
    asm volatile("ld.relaxed.sys.global.s32 %0, [%1];" : "=r"(value) : "l"(word) : "memory");
    return value;
}
DEVICE void write_host(int* word, int value) {
    asm volatile("st.relaxed.sys.global.s32 [%0], %1;" ::"l"(word), "r"(value) : "memory");
}

#if __CUDA_ARCH__ >= 900

DEVICE int cluster_rank() {
    int rank;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}

// Arriving releases and waiting acquires, at cluster scope: remote stores before it are seen after it. Without ".aligned",
// which is undefined where a warp has not come together again after a branch.
DEVICE void cluster_barrier() {
    asm volatile("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;" ::: "memory");
}

// Store into the shared memory of block `rank` of the cluster, at the place of `words[index]` in this block's.
DEVICE void store_remote(Shared<float> words, int index, int rank, float value) {
    const unsigned here = static_cast<unsigned>(__cvta_generic_to_shared(words + index));
    unsigned there;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(here), "r"(rank));
    asm volatile("st.shared::cluster.f32 [%0], %1;" ::"r"(there), "f"(value) : "memory");
}

#else  // no clusters before sm_90: a cluster is one block

DEVICE int cluster_rank() { return 0; }
DEVICE void cluster_barrier() { __syncthreads(); }
DEVICE void store_remote(Shared<float> words, int index, int, float value) { words[index] = value; }

#endif

DEVICE float4 load4(const float* words, int index) { return *reinterpret_cast<const float4*>(words + index); }

DEVICE void store4(float* words, float4 value) { *reinterpret_cast<float4*>(words) = value; }

DEVICE float bits_to_float(unsigned bits) { return __uint_as_float(bits); }

// Four bfloat16 numbers, which are the upper halves of floats; `index` is a multiple of 4.
DEVICE float4 load4(const unsigned short* words, int index) {
    const uint2 pairs = *reinterpret_cast<const uint2*>(words + index);
    return {__uint_as_float(pairs.x << 16), __uint_as_float(pairs.x & 0xffff0000u), __uint_as_float(pairs.y << 16),
            __uint_as_float(pairs.y & 0xffff0000u)};
}

#endif
