// Rows times a packed matrix. Every output is one chain of multiply-adds over the columns in order, whatever the number
// of rows and the blocking: that is what makes results independent of the batch, bit for bit.
#pragma once

namespace graphtide::GRAPHTIDE_ISA {

// How one unit of rows is read from a panel: `group` columns at a time.
struct Fp32Columns {
    using Element = float;
    static constexpr int group = 1;
    static inline void read(const float* from, Unit* columns) { columns[0] = load(from); }
};

struct Bf16Columns {
    using Element = std::uint16_t;
    static constexpr int group = 2;
    static inline void read(const std::uint16_t* from, Unit* columns) { load_bf16(from, columns[0], columns[1]); }
};

struct Int8Columns {
    using Element = std::int8_t;
    static constexpr int group = 4;
    static inline void read(const std::int8_t* from, Unit* columns) { load_int8(from, columns); }
};

struct Rows {
    const float* x;
    long x_stride;
    float* y;
    long y_stride;
    int count;

    Rows part(int first, int rows) const { return {x + first * x_stride, x_stride, y + first * y_stride, y_stride, rows}; }
};

// kRows rows times kUnits units of matrix rows; units past the fourth lie in the `second` panel.
template <class Columns, int kRows, int kUnits>
inline void tile(
    const typename Columns::Element* first, const typename Columns::Element* second, int panel_width, int columns,
    const Rows& rows, int to
) {
    Unit sums[kRows][kUnits];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
        for (int u = 0; u < kUnits; ++u) sums[r][u] = zero();
    }
    const float* x = rows.x;
    const long x_stride = rows.x_stride;
    for (int k = 0; k < columns; k += Columns::group) {
        const long at = static_cast<long>(k) * panel_width;
#pragma GCC unroll 8
        for (int u = 0; u < kUnits; ++u) {
            Unit weights[Columns::group];
            Columns::read((u < kPanelUnits ? first : second) + at + (u % kPanelUnits) * kUnit * Columns::group, weights);
#pragma GCC unroll 4
            for (int g = 0; g < Columns::group; ++g) {
#pragma GCC unroll 8
                for (int r = 0; r < kRows; ++r) {
                    sums[r][u] = multiply_add(weights[g], broadcast(x[r * x_stride + k + g]), sums[r][u]);
                }
            }
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
        for (int u = 0; u < kUnits; ++u) store(rows.y + r * rows.y_stride + to + u * kUnit, sums[r][u]);
    }
}

// Rows in blocks as equal as can be, each of at most kRows.
template <class Columns, int kRows, int kUnits>
inline void block(
    const typename Columns::Element* panel, int panel_width, int columns, const Rows& rows, int to
) {
    if constexpr (kRows > 1) {
        if (rows.count < kRows) return block<Columns, kRows - 1, kUnits>(panel, panel_width, columns, rows, to);
    }
    tile<Columns, kRows, kUnits>(panel, panel, panel_width, columns, rows, to);
}

// The units `unit` and after of one panel, kUnits at a time, then fewer.
template <class Columns, int kRows, int kUnits>
inline void strips(
    const typename Columns::Element* panel, int panel_units, int unit, int columns, const Rows& rows, int to
) {
    const int blocks = (rows.count + kRows - 1) / kRows;
    for (; unit + kUnits <= panel_units; unit += kUnits) {
        for (int b = 0, first = 0; b < blocks; ++b) {
            const int last = static_cast<int>(static_cast<long>(rows.count) * (b + 1) / blocks);
            block<Columns, kRows, kUnits>(
                panel + unit * kUnit * Columns::group, panel_units * kUnit, columns, rows.part(first, last - first),
                to + unit * kUnit
            );
            first = last;
        }
    }
    if constexpr (kUnits > 1) {
        if (unit < panel_units) strips<Columns, kRows, kUnits / 2>(panel, panel_units, unit, columns, rows, to);
    }
}

template <class Columns>
inline void product(const Matrix& matrix, const Rows& rows) {
    using Element = typename Columns::Element;
    constexpr int panel_rows = kPanelUnits * kUnit;
    constexpr int units_alone = kSingleUnits < kPanelUnits ? kSingleUnits : kPanelUnits;
    const Element* data = static_cast<const Element*>(matrix.data);
    const long panel_size = static_cast<long>(panel_rows) * matrix.columns;
    const int whole = matrix.rows / panel_rows, rest = matrix.rows % panel_rows;
    // The narrow panel first: its few long chains of sums then run beside the next panels.
    if (rest) {
        const Element* panel = data + whole * panel_size;
        if (rows.count == 1) {
            strips<Columns, 1, units_alone>(panel, rest / kUnit, 0, matrix.columns, rows, whole * panel_rows);
        } else {
            strips<Columns, kTileRows, kTileUnits>(panel, rest / kUnit, 0, matrix.columns, rows, whole * panel_rows);
        }
    }
    int p = 0;
    if (rows.count == 1) {
        if constexpr (kSingleUnits == 2 * kPanelUnits) {
            for (; p + 2 <= whole; p += 2) {
                const Element* panel = data + p * panel_size;
                tile<Columns, 1, kSingleUnits>(panel, panel + panel_size, panel_rows, matrix.columns, rows, p * panel_rows);
            }
        }
        for (; p < whole; ++p) {
            strips<Columns, 1, units_alone>(data + p * panel_size, kPanelUnits, 0, matrix.columns, rows, p * panel_rows);
        }
        return;
    }
    for (; p < whole; ++p) {
        strips<Columns, kTileRows, kTileUnits>(data + p * panel_size, kPanelUnits, 0, matrix.columns, rows, p * panel_rows);
    }
}

#if defined(GRAPHTIDE_VNNI)
void product_int8(const Matrix& matrix, const Rows& rows, Workspace& workspace);
#else
// Without integer dot products: weights become floats, and the size of a step is applied to the sums.
inline void product_int8(const Matrix& matrix, const Rows& rows, Workspace&) {
    product<Int8Columns>(matrix, rows);
    for (int r = 0; r < rows.count; ++r) {
        float* y = rows.y + r * rows.y_stride;
        for (int i = 0; i < matrix.rows; i += kUnit) store(y + i, multiply(load(y + i), load(matrix.steps + i)));
    }
}
#endif

// y[r] = matrix x[r]
inline void multiply_rows(
    const Matrix& matrix, const float* x, long x_stride, float* y, long y_stride, int count, Workspace& workspace
) {
    const Rows rows{x, x_stride, y, y_stride, count};
    switch (matrix.format) {
        case Format::fp32: return product<Fp32Columns>(matrix, rows);
        case Format::bf16: return product<Bf16Columns>(matrix, rows);
        case Format::int8: return product_int8(matrix, rows, workspace);
    }
}

}  // namespace graphtide::GRAPHTIDE_ISA
