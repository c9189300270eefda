// Rows times a packed matrix. Every output is one chain of multiply-adds over the columns in one order, whatever the
// number of rows and the blocking: that is what makes results independent of the batch, bit for bit.
#pragma once

namespace graphtide::GRAPHTIDE_ISA {

// How one unit of rows is read from a panel, `group` columns at a time, and how they meet the activations of a row, in
// `steps` steps: all rows take one before the next, so that no sum waits for itself.
struct Fp32Columns {
    using Element = float;
    using Activation = float;
    static constexpr int group = 1, steps = 1;
    Unit column;
    static inline Fp32Columns read(const float* from) { return {load(from)}; }
    inline Unit accumulate(int, const float* x, Unit sum) const { return multiply_add(column, broadcast(x[0]), sum); }
};

// The odd column first, as the processor's own dot product of bf16 has it.
struct Bf16Columns {
    using Element = std::uint16_t;
    using Activation = float;
    static constexpr int group = 2, steps = 2;
    Unit even, odd;
    static inline Bf16Columns read(const std::uint16_t* from) {
        Bf16Columns columns;
        load_bf16(from, columns.even, columns.odd);
        return columns;
    }
    inline Unit accumulate(int step, const float* x, Unit sum) const {
        return multiply_add(step ? even : odd, broadcast(x[1 - step]), sum);
    }
};

// The first lines of the states that come after a product, to be fetched while it multiplies: a part of one state with each
// tile. A tile waits for its multiply-adds, so memory is free meanwhile.
struct Coming {
    static constexpr int kLines = 2;    // with each column
    const Row* rows;
    int count;
    long at;                            // floats of a state before those that come
    int taken;

    // Where the part begins that a tile with so many columns fetches.
    const float* take(int columns) {
        const int row = taken % count, part = taken / count;
        ++taken;
        return rows[row].state + at + static_cast<long>(part) * columns * kLines * kUnit;
    }
};

template <class Activation>
struct Rows {
    const Activation* x;
    long x_stride;
    float* y;
    long y_stride;
    int count;
    Coming* coming;                     // null if nothing is to be fetched

    Rows part(int first, int rows) const {
        return {x + first * x_stride, x_stride, y + first * y_stride, y_stride, rows, coming};
    }
};

template <class Columns>
using RowsFor = Rows<typename Columns::Activation>;

// kRows rows times kUnits units of matrix rows; units past the fourth lie in the `second` panel, which follows the first.
template <class Columns, int kRows, int kUnits>
inline void tile(
    const typename Columns::Element* first, int first_width, const typename Columns::Element* second, int second_width,
    int columns, const RowsFor<Columns>& rows, int to
) {
    Unit sums[kRows][kUnits];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
        for (int u = 0; u < kUnits; ++u) sums[r][u] = zero();
    }
    const auto* x = rows.x;
    const long x_stride = rows.x_stride;
    // Few rows do not take long enough.
    const float* coming = 2 * kRows > kTileRows && rows.coming ? rows.coming->take(columns) : nullptr;
    for (int k = 0; k < columns; k += Columns::group) {
        if (coming) {
#pragma GCC unroll 4
            for (int line = 0; line < Coming::kLines * Columns::group; ++line) {
                fetch(coming + (static_cast<long>(k) * Coming::kLines + line) * kUnit);
            }
        }
        const typename Columns::Element* const at[2] = {
            first + static_cast<long>(k) * first_width, second + static_cast<long>(k) * second_width};
        if constexpr (kRows == 1) fetch_ahead(at[0], kUnits * kUnit * Columns::group * int{sizeof(*at[0])});
#pragma GCC unroll 8
        for (int u = 0; u < kUnits; ++u) {
            const Columns weights = Columns::read(at[u / kPanelUnits] + (u % kPanelUnits) * kUnit * Columns::group);
#pragma GCC unroll 4
            for (int step = 0; step < Columns::steps; ++step) {
#pragma GCC unroll 8
                for (int r = 0; r < kRows; ++r) {
                    sums[r][u] = weights.accumulate(step, x + r * x_stride + k, sums[r][u]);
                }
            }
        }
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
            for (int u = 0; u < kUnits; ++u) keep(sums[r][u]);
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
    const typename Columns::Element* panel, int panel_width, int columns, const RowsFor<Columns>& rows, int to
) {
    if constexpr (kRows > 1) {
        if (rows.count < kRows) return block<Columns, kRows - 1, kUnits>(panel, panel_width, columns, rows, to);
    }
    tile<Columns, kRows, kUnits>(panel, panel_width, panel, panel_width, columns, rows, to);
}

// The units `unit` and after of one panel, kUnits at a time, then fewer.
template <class Columns, int kRows, int kUnits>
inline void strips(
    const typename Columns::Element* panel, int panel_units, int unit, int columns, const RowsFor<Columns>& rows, int to
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

// One row: as many chains of sums as the registers hold, so that memory is what is waited for.
template <class Columns>
inline void product_alone(const Matrix& matrix, const RowsFor<Columns>& rows) {
    using Element = typename Columns::Element;
    constexpr int panel_rows = kPanelUnits * kUnit;
    const Element* data = static_cast<const Element*>(matrix.data);
    const int columns = matrix.columns;
    const long panel_size = static_cast<long>(panel_rows) * columns;
    const int whole = matrix.rows / panel_rows, rest = matrix.rows % panel_rows;
    const auto panel = [&](int p) { return data + p * panel_size; };
    if constexpr (kSingleUnits == 2 * kPanelUnits) {
        // The narrow panel goes with the last whole one: alone, its few chains would be waited for.
        const int joined = rest && whole ? whole - 1 : whole;
        int p = 0;
        for (; p + 2 <= joined; p += 2) {
            tile<Columns, 1, 8>(panel(p), panel_rows, panel(p + 1), panel_rows, columns, rows, p * panel_rows);
        }
        for (; p < joined; ++p) {
            tile<Columns, 1, 4>(panel(p), panel_rows, panel(p), panel_rows, columns, rows, p * panel_rows);
        }
        if (!rest) return;
        const int to = joined * panel_rows;
        if (!whole) return strips<Columns, 1, 2>(data, rest / kUnit, 0, columns, rows, to);
        switch (rest / kUnit) {
            case 1: return tile<Columns, 1, 5>(panel(p), panel_rows, panel(p + 1), rest, columns, rows, to);
            case 2: return tile<Columns, 1, 6>(panel(p), panel_rows, panel(p + 1), rest, columns, rows, to);
            default: return tile<Columns, 1, 7>(panel(p), panel_rows, panel(p + 1), rest, columns, rows, to);
        }
    } else {
        for (int p = 0; p < whole; ++p) {
            strips<Columns, 1, kSingleUnits>(panel(p), kPanelUnits, 0, columns, rows, p * panel_rows);
        }
        if (rest) strips<Columns, 1, kSingleUnits>(panel(whole), rest / kUnit, 0, columns, rows, whole * panel_rows);
    }
}

template <class Columns>
inline void product(const Matrix& matrix, const RowsFor<Columns>& rows) {
    if (rows.count == 1) return product_alone<Columns>(matrix, rows);
    constexpr int panel_rows = kPanelUnits * kUnit;
    const auto* data = static_cast<const typename Columns::Element*>(matrix.data);
    for (int first = 0; first < matrix.rows; first += panel_rows) {
        const int width = matrix.rows - first < panel_rows ? matrix.rows - first : panel_rows;
        strips<Columns, kTileRows, kTileUnits>(
            data + static_cast<long>(first) * matrix.columns, width / kUnit, 0, matrix.columns, rows, first
        );
    }
}

#if defined(GRAPHTIDE_VNNI) || defined(GRAPHTIDE_MADD)
void product_int8(const Matrix& matrix, const Rows<float>& rows, Workspace& workspace);
#else
struct Int8Columns {
    using Element = std::int8_t;
    using Activation = float;
    static constexpr int group = 4, steps = 4;
    Unit columns[4];
    static inline Int8Columns read(const std::int8_t* from) {
        Int8Columns read;
        load_int8(from, read.columns);
        return read;
    }
    inline Unit accumulate(int step, const float* x, Unit sum) const {
        return multiply_add(columns[step], broadcast(x[step]), sum);
    }
};

// Without products of integers: weights become floats, and the size of a step is applied to the sums.
inline void product_int8(const Matrix& matrix, const Rows<float>& rows, Workspace&) {
    product<Int8Columns>(matrix, rows);
    for (int r = 0; r < rows.count; ++r) {
        float* y = rows.y + r * rows.y_stride;
        for (int i = 0; i < matrix.rows; i += kUnit) store(y + i, multiply(load(y + i), load(matrix.steps + i)));
    }
}
#endif

#if defined(GRAPHTIDE_BF16)
void product_bf16_rounded(const Matrix& matrix, const Rows<float>& rows, Workspace& workspace);
#else
// Without dot products of bf16: the same numbers, and the same bits where multiply-adds are fused.
inline void product_bf16_rounded(const Matrix& matrix, const Rows<float>& rows, Workspace& workspace) {
    float* const rounded = workspace.rounded;
    const long stride = workspace.rounded_stride;
    for (int r = 0; r < rows.count; ++r) {
        for (int k = 0; k < matrix.columns; k += kUnit) {
            store(rounded + r * stride + k, round_to_bf16(load(rows.x + r * rows.x_stride + k)));
        }
    }
    product<Bf16Columns>(matrix, {rounded, stride, rows.y, rows.y_stride, rows.count, rows.coming});
}
#endif

// y[r] = matrix x[r]
inline void multiply_rows(
    const Matrix& matrix, const float* x, long x_stride, float* y, long y_stride, int count, Workspace& workspace,
    Coming* coming = nullptr
) {
    const Rows<float> rows{x, x_stride, y, y_stride, count, coming};
    switch (matrix.format) {
        case Format::fp32: return product<Fp32Columns>(matrix, rows);
        case Format::bf16: return product<Bf16Columns>(matrix, rows);
        case Format::int8: return product_int8(matrix, rows, workspace);
    }
}

// The same for the projections of a layer, where nearly all multiplications are: activations that meet bf16 weights are
// rounded to bf16 too.
inline void project_rows(
    const Matrix& matrix, const float* x, long x_stride, float* y, long y_stride, int count, Workspace& workspace,
    Coming* coming = nullptr
) {
    if (matrix.format == Format::bf16) {
        return product_bf16_rounded(matrix, {x, x_stride, y, y_stride, count, coming}, workspace);
    }
    multiply_rows(matrix, x, x_stride, y, y_stride, count, workspace, coming);
}

}  // namespace graphtide::GRAPHTIDE_ISA
