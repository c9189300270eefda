// The names that portability.cuh promises: a part of cuda_emulator.h, which includes it.
#pragma once

template <class T>
struct SharedPlace {
    size_t byte;
    operator T() const { return emulator::read_shared<T>(*emulator::self().block, byte); }
    const SharedPlace& operator=(T value) const {
        emulator::write_shared<T>(*emulator::self().block, byte, value);
        return *this;
    }
    const SharedPlace& operator=(const SharedPlace& other) const { return *this = static_cast<T>(other); }
};

template <class T>
struct Shared {
    size_t byte = 0;
    SharedPlace<T> operator[](int index) const { return {byte + index * sizeof(T)}; }
    Shared operator+(int index) const { return {byte + index * sizeof(T)}; }
};

template <class T>
Shared<T> shared_memory(int offset) {
    return {static_cast<size_t>(offset)};
}

#define threadIdx (Index3{static_cast<unsigned>(emulator::self().thread), 0, 0})
#define blockIdx (emulator::self().block->index)

inline void block_barrier(int line = __builtin_LINE()) {
    emulator::end_epoch(emulator::self().block->barrier, line, "block barrier");
}

inline void warp_barrier(int line = __builtin_LINE()) {
    emulator::Fiber& fiber = emulator::self();
    emulator::wait(fiber.block->warps[fiber.thread / emulator::kWarpLanes].barrier, line, "warp barrier");
    ++fiber.now.warp_epoch;
}

inline int cluster_rank() { return emulator::self().block->rank; }

inline void cluster_barrier(int line = __builtin_LINE()) {
    emulator::end_epoch(emulator::machine->cluster, line, "cluster barrier");
}

inline void store_remote(Shared<float> words, int index, int rank, float value) {
    emulator::write_shared<float>(emulator::machine->blocks[rank], words.byte + index * sizeof(float), value);
}

#include "cuda_emulator_arrivals.h"

// Two slots by turns: a lane can be one shuffle ahead of another, never two.
inline float shuffle(float value, int lane, int line = __builtin_LINE()) {
    emulator::Fiber& fiber = emulator::self();
    emulator::Warp& warp = fiber.block->warps[fiber.thread / emulator::kWarpLanes];
    float* values = warp.values[fiber.shuffles++ % 2];
    values[fiber.lane()] = value;
    emulator::wait(warp.barrier, line, "shuffle");
    return values[lane % emulator::kWarpLanes];
}
inline float shuffle_xor(float value, int mask, int line = __builtin_LINE()) {
    return shuffle(value, emulator::self().lane() ^ mask, line);
}

inline float4 load4(const float* words, int index) {
    return {words[index], words[index + 1], words[index + 2], words[index + 3]};
}
inline float4 load4(Shared<float> words, int index) {
    if ((words.byte + index * sizeof(float)) % 16) emulator::report("misaligned load of 16 bytes at byte %zu", words.byte);
    return {words[index], words[index + 1], words[index + 2], words[index + 3]};
}
inline void store4(float* words, float4 value) { std::memcpy(words, &value, sizeof value); }
inline float bits_to_float(unsigned bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}
template <class Floats>
void load16(float (&to)[4], Floats words, int index) {
    const float4 four = load4(words, index);
    to[0] = four.x, to[1] = four.y, to[2] = four.z, to[3] = four.w;
}
template <class Halves>
void load16(float (&to)[8], Halves words, int index) {
    if constexpr (!std::is_pointer_v<Halves>)
        if ((words.byte + index * 2) % 16) emulator::report("misaligned load of 16 bytes at byte %zu", words.byte);
    for (int i = 0; i < 8; ++i) to[i] = bits_to_float(static_cast<unsigned>(words[index + i]) << 16);
}

template <class Halves>
void load_pairs(unsigned (&to)[4], Halves words, int index) {
    if constexpr (!std::is_pointer_v<Halves>)
        if ((words.byte + index * 2) % 16) emulator::report("misaligned load of 16 bytes at byte %zu", words.byte);
    for (int i = 0; i < 4; ++i) {
        const unsigned low = words[index + 2 * i], high = words[index + 2 * i + 1];
        to[i] = low | high << 16;
    }
}
inline unsigned round_half(float value) {
    unsigned bits;
    std::memcpy(&bits, &value, sizeof bits);
    if (std::isnan(value)) return 0x7fff;
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
inline unsigned round_pair(float low, float high) { return round_half(low) | round_half(high) << 16; }

inline unsigned float_to_bits(float value) {
    unsigned bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

// What every lane of the warp hands to a tile product; two slots by turns, as of shuffles.
inline const emulator::TileOperands* gather_operands(const emulator::TileOperands& own, int line) {
    emulator::Fiber& fiber = emulator::self();
    emulator::Warp& warp = fiber.block->warps[fiber.thread / emulator::kWarpLanes];
    emulator::TileOperands* all = warp.operands[fiber.tiles++ % 2];
    all[fiber.lane()] = own;
    emulator::wait(warp.barrier, line, "tile product");
    return all;
}

inline void multiply_tile(float (&sums)[4], const float (&a)[4], float b0, float b1, int line = __builtin_LINE()) {
    const emulator::Fiber& fiber = emulator::self();
    const emulator::TileOperands* all = gather_operands(
        {{float_to_bits(a[0]), float_to_bits(a[1]), float_to_bits(a[2]), float_to_bits(a[3])},
         {float_to_bits(b0), float_to_bits(b1)}},
        line);
    const auto seen = [](unsigned bits) { return bits_to_float(bits & 0xffffe000u); };
    for (int i = 0; i < 4; ++i) {
        const int row = fiber.lane() / 4 + 8 * (i / 2), column = fiber.lane() % 4 * 2 + i % 2;
        for (int k = 0; k < 8; ++k)
            sums[i] = std::fma(seen(all[row % 8 * 4 + k % 4].a[row / 8 + 2 * (k / 4)]),
                               seen(all[column * 4 + k % 4].b[k / 4]), sums[i]);
    }
}

inline void multiply_tile(float (&sums)[4], const unsigned (&a)[4], unsigned b0, unsigned b1,
                          int line = __builtin_LINE()) {
    const emulator::Fiber& fiber = emulator::self();
    const emulator::TileOperands* all = gather_operands({{a[0], a[1], a[2], a[3]}, {b0, b1}}, line);
    const auto half = [](unsigned pair, int k) { return bits_to_float(k % 2 ? pair & 0xffff0000u : pair << 16); };
    for (int i = 0; i < 4; ++i) {
        const int row = fiber.lane() / 4 + 8 * (i / 2), column = fiber.lane() % 4 * 2 + i % 2;
        for (int k = 0; k < 16; ++k) {
            const int lane = k % 8 / 2;
            const unsigned left = all[row % 8 * 4 + lane].a[row / 8 + 2 * (k / 8)];
            sums[i] = std::fma(half(left, k), half(all[column * 4 + lane].b[k / 8], k), sums[i]);
        }
    }
}

inline float exp_fast(float x) { return std::exp(x); }
inline float divide_fast(float a, float b) { return a / b; }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline int read_host(const int* word) { return *static_cast<const volatile int*>(word); }
inline void write_host(int* word, int value) { *static_cast<volatile int*>(word) = value; }
