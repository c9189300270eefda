// Rows times a bf16 matrix with the processor's dot products of bf16: twice the multiplications of float32.
#pragma once

#if defined(GRAPHTIDE_AMX)
#include "matmul_amx.hpp"
#endif

namespace graphtide::GRAPHTIDE_ISA {

// Two columns at a time: the odd one is multiplied and added first, then the even one, each rounded once.
struct Bf16Pairs {
    using Element = std::uint16_t;
    using Activation = std::uint16_t;
    static constexpr int group = 2, steps = 1;
    __m512i pairs;
    static inline Bf16Pairs read(const std::uint16_t* from) { return {load_once(from)}; }
    inline Unit accumulate(int, const std::uint16_t* x, Unit sum) const {
        std::int32_t pair;
        __builtin_memcpy(&pair, x, sizeof pair);
        return _mm512_dpbf16_ps(sum, (__m512bh)_mm512_set1_epi32(pair), (__m512bh)pairs);
    }
};

inline void product_bf16_rounded(const Matrix& matrix, const Rows<float>& rows, Workspace& workspace) {
    auto* const halves = reinterpret_cast<std::uint16_t*>(workspace.rounded);
    const long stride = 2 * workspace.rounded_stride;
    for (int r = 0; r < rows.count; ++r) {
        for (int k = 0; k < matrix.columns; k += kUnit) {
            const __m256bh half = _mm512_cvtneps_pbh(load(rows.x + r * rows.x_stride + k));
            _mm256_store_si256(reinterpret_cast<__m256i*>(halves + r * stride + k), (__m256i)half);
        }
    }
    const Rows<std::uint16_t> rounded{halves, stride, rows.y, rows.y_stride, rows.count, rows.coming};
#if defined(GRAPHTIDE_AMX)
    product_amx(matrix, rounded);
#else
    product<Bf16Pairs>(matrix, rounded);
#endif
}

}  // namespace graphtide::GRAPHTIDE_ISA
