// Rows times an int8 matrix with AVX-512 VNNI. A row of activations becomes 16-bit steps of its largest value, split into
// a plane of high and one of low bytes; all sums are integers, hence exact and in any order the same.
#pragma once

namespace graphtide::GRAPHTIDE_ISA {

constexpr int kVnniRows = 3;

// x = step * (256 * high + low - 32768)
inline float split_row(const float* x, int columns, std::uint8_t* high, std::uint8_t* low) {
    Unit most = zero();
    for (int k = 0; k < columns; k += kUnit) {
        const int left = columns - k;
        const __mmask16 mask = left >= kUnit ? 0xffff : static_cast<__mmask16>((1u << left) - 1);
        most = maximum(most, absolute(_mm512_maskz_loadu_ps(mask, x + k)));
    }
    const float range = largest(most);
    // A row of zeros, or of numbers too small to divide by, counts as zero.
    const float inverse = range > 1e-30f ? 32767.0f / range : 0.0f;
    for (int k = 0; k < columns; k += kUnit) {
        const int left = columns - k;
        const __mmask16 mask = left >= kUnit ? 0xffff : static_cast<__mmask16>((1u << left) - 1);
        const Unit scaled = multiply(_mm512_maskz_loadu_ps(mask, x + k), broadcast(inverse));
        const __m512i steps = _mm512_add_epi32(_mm512_cvtps_epi32(scaled), _mm512_set1_epi32(32768));
        _mm512_mask_cvtepi32_storeu_epi8(high + k, mask, _mm512_srli_epi32(steps, 8));
        _mm512_mask_cvtepi32_storeu_epi8(low + k, mask, steps);
    }
    return range / 32767.0f;
}

inline __m512i broadcast_quad(const std::uint8_t* from) {
    std::int32_t quad;
    __builtin_memcpy(&quad, from, sizeof quad);
    return _mm512_set1_epi32(quad);
}

template <int kRows, int kUnits>
inline void tile_vnni(
    const Matrix& matrix, const std::int8_t* panel, const std::int8_t* second, int panel_width,
    const Workspace& workspace, const Rows<float>& rows, int first, int to
) {
    __m512i high[kRows][kUnits], low[kRows][kUnits];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
        for (int u = 0; u < kUnits; ++u) high[r][u] = low[r][u] = _mm512_setzero_si512();
    }
    const std::uint8_t* planes = workspace.planes + 2 * first * workspace.plane_stride;
    for (int k = 0; k < matrix.columns; k += kColumnGroup) {
        const std::int8_t* const at[2] = {
            panel + static_cast<long>(k) * panel_width, second + static_cast<long>(k) * panel_width};
        __m512i weights[kUnits];
#pragma GCC unroll 8
        for (int u = 0; u < kUnits; ++u) {
            weights[u] = _mm512_load_si512(at[u / kPanelUnits] + u % kPanelUnits * kUnit * kColumnGroup);
        }
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) {
            const std::uint8_t* row = planes + 2 * r * workspace.plane_stride + k;
            const __m512i x_high = broadcast_quad(row), x_low = broadcast_quad(row + workspace.plane_stride);
#pragma GCC unroll 8
            for (int u = 0; u < kUnits; ++u) {
                high[r][u] = _mm512_dpbusd_epi32(high[r][u], x_high, weights[u]);
                low[r][u] = _mm512_dpbusd_epi32(low[r][u], x_low, weights[u]);
            }
        }
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
            for (int u = 0; u < kUnits; ++u) {
                keep(high[r][u]);
                keep(low[r][u]);
            }
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
        const Unit step = broadcast(workspace.plane_steps[first + r]);
#pragma GCC unroll 8
        for (int u = 0; u < kUnits; ++u) {
            const int at = to + u * kUnit;
            const __m512i centred = _mm512_sub_epi32(high[r][u], _mm512_load_si512(matrix.sums + at));
            const Unit total =
                multiply_add(_mm512_cvtepi32_ps(centred), broadcast(256.0f), _mm512_cvtepi32_ps(low[r][u]));
            store(rows.y + (first + r) * rows.y_stride + at, multiply(multiply(total, load(matrix.steps + at)), step));
        }
    }
}

template <int kRows, int kUnits>
inline void strips_vnni(
    const Matrix& matrix, const std::int8_t* panel, int panel_units, int unit, const Workspace& workspace,
    const Rows<float>& rows, int to
) {
    for (; unit + kUnits <= panel_units; unit += kUnits) {
        const std::int8_t* at = panel + unit * kUnit * kColumnGroup;
        int r = 0;
        for (; r + kRows <= rows.count; r += kRows) {
            tile_vnni<kRows, kUnits>(matrix, at, at, panel_units * kUnit, workspace, rows, r, to + unit * kUnit);
        }
        for (; r < rows.count; ++r) {
            tile_vnni<1, kUnits>(matrix, at, at, panel_units * kUnit, workspace, rows, r, to + unit * kUnit);
        }
    }
    if constexpr (kUnits > 1) {
        if (unit < panel_units) {
            strips_vnni<kRows, kUnits / 2>(matrix, panel, panel_units, unit, workspace, rows, to);
        }
    }
}

inline void product_int8(const Matrix& matrix, const Rows<float>& rows, Workspace& workspace) {
    for (int r = 0; r < rows.count; ++r) {
        std::uint8_t* high = workspace.planes + 2 * r * workspace.plane_stride;
        workspace.plane_steps[r] =
            split_row(rows.x + r * rows.x_stride, matrix.columns, high, high + workspace.plane_stride);
    }
    constexpr int panel_rows = kPanelUnits * kUnit;
    const std::int8_t* data = static_cast<const std::int8_t*>(matrix.data);
    int first = 0;
    if (rows.count == 1) {
        for (; first + 2 * panel_rows <= matrix.rows; first += 2 * panel_rows) {
            const std::int8_t* panel = data + static_cast<long>(first) * matrix.columns;
            const std::int8_t* second = panel + static_cast<long>(panel_rows) * matrix.columns;
            tile_vnni<1, 2 * kPanelUnits>(matrix, panel, second, panel_rows, workspace, rows, 0, first);
        }
    }
    for (; first < matrix.rows; first += panel_rows) {
        const int width = matrix.rows - first < panel_rows ? matrix.rows - first : panel_rows;
        const std::int8_t* panel = data + static_cast<long>(first) * matrix.columns;
        strips_vnni<kVnniRows, kPanelUnits>(matrix, panel, width / kUnit, 0, workspace, rows, first);
    }
}

}  // namespace graphtide::GRAPHTIDE_ISA
