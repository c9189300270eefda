// All that the kernels know of the machine they run on: a GPU, through inline PTX and no header, or the emulator of the
// tests. Both offer the same few names.
#pragma once

#ifdef GRAPHTIDE_EMULATED
#include "cuda_emulator.h"
#else

#define DEVICE __device__ __forceinline__
#define KERNEL(threads) extern "C" __global__ void __launch_bounds__(threads, 1)
// With registers for two blocks of a multiprocessor.
#define PAIRED_KERNEL(threads) extern "C" __global__ void __launch_bounds__(threads, 2)
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
DEVICE void warp_barrier() { __syncwarp(); }

// Within a few units in the last place; both may be off by more where results are far below 1.
DEVICE float exp_fast(float x) { return __expf(x); }
DEVICE float divide_fast(float a, float b) { return __fdividef(a, b); }

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

// A word of shared memory, at byte `byte`, that counts the bytes which blocks of the cluster store here, phase by phase.
struct Arrivals {
    int byte;
};

#if __CUDA_ARCH__ >= 900

DEVICE unsigned shared_address(Arrivals arrivals) {
    return static_cast<unsigned>(__cvta_generic_to_shared(shared_memory<char>(arrivals.byte)));
}

// By one thread of a block, before a cluster barrier.
DEVICE void prepare_arrivals(Arrivals arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;\nfence.mbarrier_init.release.cluster;" ::"r"(
                     shared_address(arrivals))
                 : "memory");
}

// By one thread, once a phase, which ends when this was called and as many bytes have come.
DEVICE void expect_arrivals(Arrivals arrivals, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(arrivals)), "r"(bytes)
                 : "memory");
}

// Until the phase of this parity has ended: 0 for the first one, then by turns.
DEVICE void wait_arrivals(Arrivals arrivals, int parity) {
    asm volatile(
        "{\n.reg .pred ended;\n"
        "again_%=:\nmbarrier.try_wait.parity.shared::cta.b64 ended, [%0], %1;\n@!ended bra again_%=;\n}" ::"r"(
            shared_address(arrivals)),
        "r"(parity)
        : "memory");
}

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

// The same, counted at `arrivals` of that block: who waits there sees the value, with no fence over the memory of the
// whole GPU, which the release of a cluster barrier is.
DEVICE void store_remote(Shared<float> words, int index, int rank, float value, Arrivals arrivals) {
    const unsigned here = static_cast<unsigned>(__cvta_generic_to_shared(words + index));
    unsigned there, counter;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(here), "r"(rank));
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(counter) : "r"(shared_address(arrivals)), "r"(rank));
    asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.f32 [%0], %1, [%2];" ::"r"(there), "f"(value),
                 "r"(counter)
                 : "memory");
}

#else  // no clusters before sm_90: a cluster is one block, and nothing has to be counted

DEVICE int cluster_rank() { return 0; }
DEVICE void cluster_barrier() { __syncthreads(); }
DEVICE void store_remote(Shared<float> words, int index, int, float value) { words[index] = value; }
DEVICE void store_remote(Shared<float> words, int index, int, float value, Arrivals) { words[index] = value; }
DEVICE void prepare_arrivals(Arrivals) {}
DEVICE void expect_arrivals(Arrivals, int) {}
DEVICE void wait_arrivals(Arrivals, int) {}

#endif

DEVICE float4 load4(const float* words, int index) { return *reinterpret_cast<const float4*>(words + index); }

DEVICE void store4(float* words, float4 value) { *reinterpret_cast<float4*>(words) = value; }

DEVICE float bits_to_float(unsigned bits) { return __uint_as_float(bits); }
DEVICE unsigned float_to_bits(float value) { return __float_as_uint(value); }

// What one load of 16 bytes brings: 4 floats, or 8 bfloat16 numbers, which are the upper halves of floats.
DEVICE void load16(float (&to)[4], const float* words, int index) {
    const float4 four = load4(words, index);
    to[0] = four.x, to[1] = four.y, to[2] = four.z, to[3] = four.w;
}
DEVICE void load16(float (&to)[8], const unsigned short* words, int index) {
    const uint4 pairs = *reinterpret_cast<const uint4*>(words + index);
    to[0] = __uint_as_float(pairs.x << 16), to[1] = __uint_as_float(pairs.x & 0xffff0000u);
    to[2] = __uint_as_float(pairs.y << 16), to[3] = __uint_as_float(pairs.y & 0xffff0000u);
    to[4] = __uint_as_float(pairs.z << 16), to[5] = __uint_as_float(pairs.z & 0xffff0000u);
    to[6] = __uint_as_float(pairs.w << 16), to[7] = __uint_as_float(pairs.w & 0xffff0000u);
}

// 8 bfloat16 numbers in pairs.
DEVICE void load_pairs(unsigned (&to)[4], const unsigned short* words, int index) {
    const uint4 pairs = *reinterpret_cast<const uint4*>(words + index);
    to[0] = pairs.x, to[1] = pairs.y, to[2] = pairs.z, to[3] = pairs.w;
}

// Two floats rounded to bfloat16, to nearest even; the first in the lower half.
DEVICE unsigned round_pair(float low, float high) {
    unsigned pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

// sums += a b by a warp: a 16 x 8 and b 8 x 8, floats of which the upper 19 bits count, sums 16 x 8. Lane l has rows
// l / 4 and l / 4 + 8 of a in columns l % 4 (first two) and l % 4 + 4, column l / 4 of b in the same, and of each of its
// rows columns 2 (l % 4) and the next of sums; mma.m16n8k8 of the PTX manual.
DEVICE void multiply_tile(float (&sums)[4], const float (&a)[4], float b0, float b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(__float_as_uint(a[0])), "r"(__float_as_uint(a[1])), "r"(__float_as_uint(a[2])),
          "r"(__float_as_uint(a[3])), "r"(__float_as_uint(b0)), "r"(__float_as_uint(b1)));
}

// The same for a 16 x 16 and b 16 x 8 of bfloat16 in pairs, spread as for mma.m16n8k16.
DEVICE void multiply_tile(float (&sums)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

#endif
