// Rows times a bf16 matrix with AMX: an instruction multiplies 16 rows by 32 columns of 16 outputs. It keeps the sums of even
// and of odd columns apart until their end, so the bits are not those of the other kernels; any number of rows has the same.
#pragma once

#if defined(GRAPHTIDE_TILES)
#include GRAPHTIDE_TILES
#else
#include "tiles_amx.hpp"
#endif

namespace graphtide::GRAPHTIDE_ISA {

constexpr int kAmxRows = 16, kAmxColumns = 32;

// Of the eight tiles 0 to 3 hold sums, 4 rows and 5 weights of 32 columns, 6 and 7 those of the 16 that may be left.
struct alignas(64) TileShapes {
    std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
    std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 32, 64};
    std::uint8_t rows[16];

    explicit TileShapes(int count) : rows{} {
        for (int tile = 0; tile < 8; ++tile) rows[tile] = static_cast<std::uint8_t>(count);
        rows[5] = 16;
        rows[7] = 8;
    }
};

// kUnits units of outputs of one panel for as many rows as the tiles are configured for.
template <int kUnits>
inline void tile_amx(
    const std::uint16_t* panel, int columns, const std::uint16_t* x, long x_stride, float* y, long y_stride
) {
    constexpr long panel_bytes = kUnits * kUnit * 4L;   // of a pair of columns
    const long x_bytes = x_stride * 2, y_bytes = y_stride * 4;
#define GRAPHTIDE_EACH_UNIT(DO) \
    do { \
        DO(0); \
        if constexpr (kUnits > 1) DO(1); \
        if constexpr (kUnits > 2) DO(2); \
        if constexpr (kUnits > 3) DO(3); \
    } while (false)
#define GRAPHTIDE_MULTIPLY(unit, rows_tile, weights_tile) \
    { \
        GRAPHTIDE_TILE_LOAD(weights_tile, at + unit * kUnit * 2, panel_bytes); \
        GRAPHTIDE_TILE_MULTIPLY(unit, rows_tile, weights_tile); \
    }
#define GRAPHTIDE_MULTIPLY_WHOLE(unit) GRAPHTIDE_MULTIPLY(unit, 4, 5)
#define GRAPHTIDE_MULTIPLY_HALF(unit) GRAPHTIDE_MULTIPLY(unit, 6, 7)
#define GRAPHTIDE_STORE(unit) GRAPHTIDE_TILE_STORE(unit, y + unit * kUnit, y_bytes)
    GRAPHTIDE_EACH_UNIT(GRAPHTIDE_TILE_ZERO);
    const std::uint16_t* at = panel;
    int k = 0;
    for (; k + kAmxColumns <= columns; k += kAmxColumns, at += kAmxColumns * kUnits * kUnit) {
        GRAPHTIDE_TILE_LOAD(4, x + k, x_bytes);
        GRAPHTIDE_EACH_UNIT(GRAPHTIDE_MULTIPLY_WHOLE);
    }
    if (k < columns) {
        GRAPHTIDE_TILE_LOAD(6, x + k, x_bytes);
        GRAPHTIDE_EACH_UNIT(GRAPHTIDE_MULTIPLY_HALF);
    }
    GRAPHTIDE_EACH_UNIT(GRAPHTIDE_STORE);
#undef GRAPHTIDE_STORE
#undef GRAPHTIDE_MULTIPLY_HALF
#undef GRAPHTIDE_MULTIPLY_WHOLE
#undef GRAPHTIDE_MULTIPLY
#undef GRAPHTIDE_EACH_UNIT
}

// Columns are a multiple of 16: every matrix of a layer has whole units of them.
inline void product_amx(const Matrix& matrix, const Rows<std::uint16_t>& rows) {
    constexpr int panel_rows = kPanelUnits * kUnit;
    const auto* data = static_cast<const std::uint16_t*>(matrix.data);
    for (int row = 0; row < rows.count; row += kAmxRows) {
        const TileShapes shapes(rows.count - row < kAmxRows ? rows.count - row : kAmxRows);
        // Compilers do not know of all that the instructions of tiles read.
        asm volatile("" : : "r"(&shapes) : "memory");
        GRAPHTIDE_TILE_CONFIGURE(&shapes);
        const std::uint16_t* x = rows.x + row * rows.x_stride;
        for (int first = 0; first < matrix.rows; first += panel_rows) {
            const std::uint16_t* panel = data + static_cast<long>(first) * matrix.columns;
            float* y = rows.y + row * rows.y_stride + first;
            switch (matrix.rows - first) {
                case kUnit: tile_amx<1>(panel, matrix.columns, x, rows.x_stride, y, rows.y_stride); break;
                case 2 * kUnit: tile_amx<2>(panel, matrix.columns, x, rows.x_stride, y, rows.y_stride); break;
                case 3 * kUnit: tile_amx<3>(panel, matrix.columns, x, rows.x_stride, y, rows.y_stride); break;
                default: tile_amx<4>(panel, matrix.columns, x, rows.x_stride, y, rows.y_stride);
            }
        }
    }
    GRAPHTIDE_TILE_RELEASE();
}

}  // namespace graphtide::GRAPHTIDE_ISA
