// One unit of 16 floats in an AVX-512 register.
#pragma once

#include <immintrin.h>

#include "model.hpp"

namespace graphtide::GRAPHTIDE_ISA {

using Unit = __m512;

// Register blocking: units of a row that one pass computes for one row, units and rows of a tile, units of a scan.
constexpr int kSingleUnits = 8, kTileUnits = 4, kTileRows = 6, kScanUnits = 4, kSingleScanUnits = 4;
constexpr int kProbeUnits = 12;     // independent sums that are needed to keep all multiply-adds busy, and that registers hold

inline Unit zero() { return _mm512_setzero_ps(); }
inline Unit broadcast(float value) { return _mm512_set1_ps(value); }
inline Unit load(const float* from) { return _mm512_load_ps(from); }
inline Unit load_unaligned(const float* from) { return _mm512_loadu_ps(from); }
inline void store(float* to, Unit a) { _mm512_store_ps(to, a); }
// Asks for a line to come into the second cache.
inline void fetch(const float* from) { _mm_prefetch(reinterpret_cast<const char*>(from), _MM_HINT_T1); }
// Asking for weights ahead of their use gained nothing here.
inline void fetch_ahead(const void*, int) {}
inline Unit add(Unit a, Unit b) { return _mm512_add_ps(a, b); }
inline Unit subtract(Unit a, Unit b) { return _mm512_sub_ps(a, b); }
inline Unit multiply(Unit a, Unit b) { return _mm512_mul_ps(a, b); }
inline Unit multiply_add(Unit a, Unit b, Unit c) { return _mm512_fmadd_ps(a, b, c); }
inline Unit minimum(Unit a, Unit b) { return _mm512_min_ps(a, b); }
inline Unit maximum(Unit a, Unit b) { return _mm512_max_ps(a, b); }
inline Unit absolute(Unit a) { return _mm512_abs_ps(a); }
inline Unit round_to_even(Unit a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
inline Unit scale_by_power(Unit a, Unit exponent) { return _mm512_scalef_ps(a, exponent); }
inline float sum(Unit a) { return _mm512_reduce_add_ps(a); }
inline float largest(Unit a) { return _mm512_reduce_max_ps(a); }

// 1 / a for a in [1, 1e35], to about one unit in the last place: an estimate and one step of Newton's method, which
// keeps the divider free.
inline Unit reciprocal(Unit a) {
    const Unit estimate = _mm512_rcp14_ps(a);
    return _mm512_mul_ps(estimate, _mm512_fnmadd_ps(a, estimate, _mm512_set1_ps(2.0f)));
}

// Says that a register is read and changed here. GCC otherwise copies each sum of a tile to the stack in every round of
// a loop, and the stores are what is waited for.
inline void keep(Unit& a) { asm("" : "+v"(a)); }
inline void keep(__m512i& a) { asm("" : "+v"(a)); }

// A load that stays one: compilers fold a load into each use, and a line on its way from the L2 cache that is asked for
// twice costs more than the instruction that it saves.
inline __m512i load_once(const void* from) {
    __m512i loaded = _mm512_load_si512(from);
    asm("" : "+v"(loaded));
    return loaded;
}

// Columns k and k + 1 of 16 rows of a bf16 panel, as floats.
inline void load_bf16(const std::uint16_t* from, Unit& even, Unit& odd) {
    const __m512i pairs = load_once(from);
    even = _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16));
    odd = _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
}

// The nearest bfloat16, to even where two are as near.
inline Unit round_to_bf16(Unit a) {
    const __m512i bits = _mm512_castps_si512(a);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    return _mm512_castsi512_ps(_mm512_and_si512(rounded, _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
}

// Columns k to k + 3 of 16 rows of an int8 panel, as floats.
inline void load_int8(const std::int8_t* from, Unit columns[4]) {
    const __m512i quads = load_once(from);
    columns[0] = _mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(quads, 24), 24));
    columns[1] = _mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(quads, 16), 24));
    columns[2] = _mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(quads, 8), 24));
    columns[3] = _mm512_cvtepi32_ps(_mm512_srai_epi32(quads, 24));
}

}  // namespace graphtide::GRAPHTIDE_ISA
