// Rows times an int8 matrix with the integer multiply-adds of AVX2. A row of activations becomes 16-bit steps of its
// largest value, and weights are widened to 16 bits; all sums are integers, hence exact and in any order the same.
#pragma once

namespace graphtide::GRAPHTIDE_ISA {

constexpr int kMaddRows = 3;        // with one unit each; a single row has the units of a panel
// So many products of 127 * 32767 fit a sum of 32 bits.
constexpr int kMaddColumns = 512;

// x = step * steps; of every four columns the first and the third come first, then the others, as tiles pair them.
// The columns of a projection are whole units.
inline float round_row(const float* x, int columns, std::int16_t* steps) {
    Unit most = zero();
    for (int k = 0; k < columns; k += kUnit) most = maximum(most, absolute(load(x + k)));
    const float range = largest(most);
    // A row of zeros, or of numbers too small to divide by, counts as zero.
    const Unit inverse = broadcast(range > 1e-30f ? 32767.0f / range : 0.0f);
    const __m256i order = _mm256_broadcastsi128_si256(_mm_set_epi64x(0x0f0e0b0a0d0c0908, 0x0706030205040100));
    for (int k = 0; k < columns; k += kUnit) {
        const Unit scaled = multiply(load(x + k), inverse);
        const __m256i halves = _mm256_packs_epi32(_mm256_cvtps_epi32(scaled.low), _mm256_cvtps_epi32(scaled.high));
        // Packing goes lane by lane.
        const __m256i row = _mm256_permute4x64_epi64(halves, 0xd8);
        _mm256_store_si256(reinterpret_cast<__m256i*>(steps + k), _mm256_shuffle_epi8(row, order));
    }
    return range / 32767.0f;
}

inline __m256i broadcast_pair(const std::int16_t* from) {
    std::int32_t pair;
    __builtin_memcpy(&pair, from, sizeof pair);
    return _mm256_set1_epi32(pair);
}

// kRows rows from `first` on times kUnits units of a panel.
template <int kRows, int kUnits>
inline void tile_madd(
    const Matrix& matrix, const std::int8_t* panel, int panel_width, const Workspace& workspace, const Rows<float>& rows,
    int first, int to
) {
    const auto* steps = reinterpret_cast<const std::int16_t*>(workspace.planes) + first * workspace.plane_stride;
    for (int begin = 0; begin < matrix.columns; begin += kMaddColumns) {
        const int end = matrix.columns - begin < kMaddColumns ? matrix.columns : begin + kMaddColumns;
        __m256i sums[kRows][kUnits][2];
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
            for (int u = 0; u < kUnits; ++u) sums[r][u][0] = sums[r][u][1] = _mm256_setzero_si256();
        }
        for (int k = begin; k < end; k += kColumnGroup) {
            const std::int8_t* at = panel + static_cast<long>(k) * panel_width;
            if constexpr (kRows == 1) fetch_ahead(at, kUnits * kUnit * kColumnGroup);
            __m256i even[kRows], odd[kRows];
#pragma GCC unroll 8
            for (int r = 0; r < kRows; ++r) {
                even[r] = broadcast_pair(steps + r * workspace.plane_stride + k);
                odd[r] = broadcast_pair(steps + r * workspace.plane_stride + k + 2);
            }
#pragma GCC unroll 8
            for (int half = 0; half < 2 * kUnits; ++half) {
                // Eight rows of the matrix, four columns each.
                const __m256i eight = _mm256_load_si256(reinterpret_cast<const __m256i*>(at) + half);
                const __m256i evens = _mm256_srai_epi16(_mm256_slli_epi16(eight, 8), 8);
                const __m256i odds = _mm256_srai_epi16(eight, 8);
#pragma GCC unroll 8
                for (int r = 0; r < kRows; ++r) {
                    __m256i& sum = sums[r][half / 2][half % 2];
                    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(evens, even[r]));
                    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(odds, odd[r]));
                }
            }
        }
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) {
            const Unit step = broadcast(workspace.plane_steps[first + r]);
#pragma GCC unroll 8
            for (int u = 0; u < kUnits; ++u) {
                const int row = to + u * kUnit;
                float* y = rows.y + (first + r) * rows.y_stride + row;
                Unit total = {_mm256_cvtepi32_ps(sums[r][u][0]), _mm256_cvtepi32_ps(sums[r][u][1])};
                if (begin) total = add(load(y), total);
                store(y, end < matrix.columns ? total : multiply(multiply(total, load(matrix.steps + row)), step));
            }
        }
    }
}

inline void product_int8(const Matrix& matrix, const Rows<float>& rows, Workspace& workspace) {
    auto* const steps = reinterpret_cast<std::int16_t*>(workspace.planes);
    for (int r = 0; r < rows.count; ++r) {
        workspace.plane_steps[r] =
            round_row(rows.x + r * rows.x_stride, matrix.columns, steps + r * workspace.plane_stride);
    }
    constexpr int panel_rows = kPanelUnits * kUnit;
    const int tiled = rows.count / kMaddRows * kMaddRows;
    for (int first = 0; first < matrix.rows; first += panel_rows) {
        const int width = matrix.rows - first < panel_rows ? matrix.rows - first : panel_rows;
        const std::int8_t* panel = static_cast<const std::int8_t*>(matrix.data) + static_cast<long>(first) * matrix.columns;
        for (int unit = 0; unit < width; unit += kUnit) {
            const std::int8_t* at = panel + unit * kColumnGroup;
            for (int r = 0; r < tiled; r += kMaddRows) {
                tile_madd<kMaddRows, 1>(matrix, at, width, workspace, rows, r, first + unit);
            }
            if (width == panel_rows) continue;
            for (int r = tiled; r < rows.count; ++r) tile_madd<1, 1>(matrix, at, width, workspace, rows, r, first + unit);
        }
        if (width < panel_rows) continue;
        for (int r = tiled; r < rows.count; ++r) {
            tile_madd<1, kPanelUnits>(matrix, panel, width, workspace, rows, r, first);
        }
    }
}

}  // namespace graphtide::GRAPHTIDE_ISA
