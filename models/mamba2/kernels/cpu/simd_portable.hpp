// One unit of 16 floats in four vectors of the compiler: SSE2 on x86-64, NEON on Arm, plain code elsewhere.
#pragma once

#include <math.h>
#include <string.h>

#if defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "model.hpp"

namespace graphtide::GRAPHTIDE_ISA {

typedef float Four __attribute__((vector_size(16)));
typedef std::int32_t FourInts __attribute__((vector_size(16)));

struct Unit {
    Four part[4];
};

#if defined(__aarch64__)
constexpr int kSingleUnits = 4, kTileUnits = 1, kTileRows = 5, kScanUnits = 2, kSingleScanUnits = 2;
constexpr int kProbeUnits = 6;
inline Four fused(Four a, Four b, Four c) { return vfmaq_f32(c, a, b); }
#else
constexpr int kSingleUnits = 2, kTileUnits = 1, kTileRows = 2, kScanUnits = 1, kSingleScanUnits = 1;
constexpr int kProbeUnits = 3;
inline Four fused(Four a, Four b, Four c) { return a * b + c; }
#endif

template <class Function>
inline Unit each(Function function) {
    return {{function(0), function(1), function(2), function(3)}};
}

inline Four four(float value) { return Four{value, value, value, value}; }
inline Unit broadcast(float value) { return {{four(value), four(value), four(value), four(value)}}; }
inline Unit zero() { return broadcast(0.0f); }
inline Unit load(const float* from) {
    return each([&](int i) { return *reinterpret_cast<const Four*>(from + 4 * i); });
}
inline Unit load_unaligned(const float* from) {
    Unit result;
    memcpy(&result, from, sizeof result);
    return result;
}
inline void store(float* to, Unit a) {
    for (int i = 0; i < 4; ++i) *reinterpret_cast<Four*>(to + 4 * i) = a.part[i];
}
inline void fetch(const float* from) { __builtin_prefetch(from, 1, 2); }
// Whether asking for weights ahead of their use gains anything here was not measured.
inline void fetch_ahead(const void*, int) {}
inline void keep(Unit&) {}
inline Unit add(Unit a, Unit b) { return each([&](int i) { return a.part[i] + b.part[i]; }); }
inline Unit subtract(Unit a, Unit b) { return each([&](int i) { return a.part[i] - b.part[i]; }); }
inline Unit multiply(Unit a, Unit b) { return each([&](int i) { return a.part[i] * b.part[i]; }); }
inline Unit multiply_add(Unit a, Unit b, Unit c) {
    return each([&](int i) { return fused(a.part[i], b.part[i], c.part[i]); });
}
inline Four select(FourInts condition, Four a, Four b) {
    return (Four)((condition & (FourInts)a) | (~condition & (FourInts)b));
}
inline Unit minimum(Unit a, Unit b) {
    return each([&](int i) { return select(a.part[i] < b.part[i], a.part[i], b.part[i]); });
}
inline Unit maximum(Unit a, Unit b) {
    return each([&](int i) { return select(a.part[i] > b.part[i], a.part[i], b.part[i]); });
}
inline Unit absolute(Unit a) {
    return each([&](int i) { return (Four)((FourInts)a.part[i] & 0x7fffffff); });
}
// Exact for |a| < 2^22: adding 1.5 * 2^23 leaves no room for a fraction.
inline Unit round_to_even(Unit a) {
    const Four magic = four(12582912.0f);
    return each([&](int i) { return (a.part[i] + magic) - magic; });
}
inline Unit scale_by_power(Unit a, Unit exponent) {
    return each([&](int i) {
        const FourInts biased = __builtin_convertvector(exponent.part[i], FourInts) + 127;
        return a.part[i] * (Four)(biased << 23);
    });
}
inline float sum(Unit a) {
    const Four four = (a.part[0] + a.part[2]) + (a.part[1] + a.part[3]);
    return (four[0] + four[2]) + (four[1] + four[3]);
}
inline float largest(Unit a) {
    float result = a.part[0][0];
    for (int i = 0; i < 16; ++i) result = a.part[i / 4][i % 4] > result ? a.part[i / 4][i % 4] : result;
    return result;
}
inline Unit reciprocal(Unit a) {
    return each([&](int i) { return four(1.0f) / a.part[i]; });
}

inline void load_bf16(const std::uint16_t* from, Unit& even, Unit& odd) {
    for (int i = 0; i < 4; ++i) {
        FourInts pairs;
        memcpy(&pairs, from + 8 * i, sizeof pairs);
        even.part[i] = (Four)(pairs << 16);
        odd.part[i] = (Four)(pairs & static_cast<std::int32_t>(0xffff0000u));
    }
}

inline Unit round_to_bf16(Unit a) {
    return each([&](int i) {
        const FourInts bits = (FourInts)a.part[i];
        return (Four)((bits + (((bits >> 16) & 1) + 0x7fff)) & static_cast<std::int32_t>(0xffff0000u));
    });
}

inline void load_int8(const std::int8_t* from, Unit columns[4]) {
    for (int i = 0; i < 4; ++i) {
        FourInts quads;
        memcpy(&quads, from + 16 * i, sizeof quads);
        columns[0].part[i] = __builtin_convertvector((quads << 24) >> 24, Four);
        columns[1].part[i] = __builtin_convertvector((quads << 16) >> 24, Four);
        columns[2].part[i] = __builtin_convertvector((quads << 8) >> 24, Four);
        columns[3].part[i] = __builtin_convertvector(quads >> 24, Four);
    }
}

}  // namespace graphtide::GRAPHTIDE_ISA
