// One unit of 16 floats in two AVX registers.
#pragma once

#include <immintrin.h>

#include "model.hpp"

namespace graphtide::GRAPHTIDE_ISA {

struct Unit {
    __m256 low, high;
};

constexpr int kSingleUnits = 4, kTileUnits = 1, kTileRows = 6;
// A single row gains 2 to 5 % by twice as many lanes at a time, though registers do not hold them; others lose 2 to 3 % (by
// hand, on Zen 3).
constexpr int kScanUnits = 2, kSingleScanUnits = 4;
constexpr int kProbeUnits = 6;

inline Unit zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
inline Unit broadcast(float value) { return {_mm256_set1_ps(value), _mm256_set1_ps(value)}; }
inline Unit load(const float* from) { return {_mm256_load_ps(from), _mm256_load_ps(from + 8)}; }
inline Unit load_unaligned(const float* from) { return {_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)}; }
inline void store(float* to, Unit a) {
    _mm256_store_ps(to, a.low);
    _mm256_store_ps(to + 8, a.high);
}
inline void fetch(const float* from) { __builtin_prefetch(from, 1, 2); }
// A single row waits for its weights: lines that lie so far ahead are asked for while it multiplies. By hand, on Zen 3: one
// to four KiB gain 3 to 7 %, sixteen nothing.
constexpr int kAheadBytes = 4096;
inline void fetch_ahead(const void* from, int bytes) {
#pragma GCC unroll 8
    for (int line = 0; line < bytes; line += 64) {
        __builtin_prefetch(static_cast<const char*>(from) + kAheadBytes + line, 0, 3);
    }
}
inline void keep(Unit&) {}
inline Unit add(Unit a, Unit b) { return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)}; }
inline Unit subtract(Unit a, Unit b) { return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)}; }
inline Unit multiply(Unit a, Unit b) { return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)}; }
inline Unit multiply_add(Unit a, Unit b, Unit c) {
    return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}
inline Unit minimum(Unit a, Unit b) { return {_mm256_min_ps(a.low, b.low), _mm256_min_ps(a.high, b.high)}; }
inline Unit maximum(Unit a, Unit b) { return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)}; }
inline Unit absolute(Unit a) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return {_mm256_andnot_ps(sign, a.low), _mm256_andnot_ps(sign, a.high)};
}
inline Unit round_to_even(Unit a) {
    constexpr int mode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    return {_mm256_round_ps(a.low, mode), _mm256_round_ps(a.high, mode)};
}
inline __m256 scale_by_power(__m256 a, __m256 exponent) {
    const __m256i biased = _mm256_add_epi32(_mm256_cvtps_epi32(exponent), _mm256_set1_epi32(127));
    return _mm256_mul_ps(a, _mm256_castsi256_ps(_mm256_slli_epi32(biased, 23)));
}
inline Unit scale_by_power(Unit a, Unit exponent) {
    return {scale_by_power(a.low, exponent.low), scale_by_power(a.high, exponent.high)};
}
inline float sum(Unit a) {
    const __m256 eight = _mm256_add_ps(a.low, a.high);
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    four = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
}
inline float largest(Unit a) {
    const __m256 eight = _mm256_max_ps(a.low, a.high);
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    four = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
}
inline Unit reciprocal(Unit a) {
    const __m256 one = _mm256_set1_ps(1.0f);
    return {_mm256_div_ps(one, a.low), _mm256_div_ps(one, a.high)};
}

inline void load_bf16(const std::uint16_t* from, Unit& even, Unit& odd) {
    const __m256i mask = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
    const __m256i low = _mm256_load_si256(reinterpret_cast<const __m256i*>(from));
    const __m256i high = _mm256_load_si256(reinterpret_cast<const __m256i*>(from + 16));
    even = {_mm256_castsi256_ps(_mm256_slli_epi32(low, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(high, 16))};
    odd = {_mm256_castsi256_ps(_mm256_and_si256(low, mask)), _mm256_castsi256_ps(_mm256_and_si256(high, mask))};
}

inline __m256 round_to_bf16(__m256 a) {
    const __m256i bits = _mm256_castps_si256(a);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    return _mm256_castsi256_ps(_mm256_and_si256(rounded, _mm256_set1_epi32(static_cast<int>(0xffff0000u))));
}
inline Unit round_to_bf16(Unit a) { return {round_to_bf16(a.low), round_to_bf16(a.high)}; }

}  // namespace graphtide::GRAPHTIDE_ISA
