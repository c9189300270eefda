// The tile registers of AMX in plain C++, with the checks that the processor makes: what it faults on ends the program here.
// As in the Intel 64 and IA-32 Architectures Software Developer's Manual, LDTILECFG, TILELOADD, TDPBF16PS, TILESTORED.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace amx_emulated {

struct Tile {
    int rows = 0, row_bytes = 0;
    unsigned char data[16][64];
};

inline Tile tiles[8];
inline bool is_configured = false;

inline void require(bool condition, const char* what) {
    if (condition) return;
    std::fprintf(stderr, "AMX would fault: %s\n", what);
    std::exit(4);
}

inline Tile& tile(int number) {
    require(is_configured, "no tile is configured");
    require(number >= 0 && number < 8, "there are eight tiles");
    require(tiles[number].rows > 0 && tiles[number].row_bytes > 0, "a tile that is not configured is used");
    return tiles[number];
}

inline void configure(const void* shapes) {
    const auto* bytes = static_cast<const unsigned char*>(shapes);
    require(bytes[0] == 1 && bytes[1] == 0, "palette and start row");
    for (int i = 2; i < 16; ++i) require(bytes[i] == 0, "reserved bytes");
    for (int i = 0; i < 16; ++i) {
        std::uint16_t row_bytes;
        std::memcpy(&row_bytes, bytes + 16 + 2 * i, 2);
        const int rows = bytes[48 + i];
        require(row_bytes <= 64 && rows <= 16, "a tile is too large");
        require((row_bytes == 0) == (rows == 0), "a tile has rows without bytes, or bytes without rows");
        require(i < 8 || rows == 0, "there are eight tiles");
        if (i < 8) tiles[i] = Tile{rows, row_bytes, {}};
    }
    is_configured = true;
}

inline void zero(int number) { std::memset(tile(number).data, 0, sizeof(Tile::data)); }

inline void load(int number, const void* from, long stride_bytes) {
    Tile& to = tile(number);
    std::memset(to.data, 0, sizeof to.data);
    for (int row = 0; row < to.rows; ++row) {
        std::memcpy(to.data[row], static_cast<const char*>(from) + row * stride_bytes, static_cast<std::size_t>(to.row_bytes));
    }
}

inline void store(int number, void* to, long stride_bytes) {
    const Tile& from = tile(number);
    for (int row = 0; row < from.rows; ++row) {
        std::memcpy(static_cast<char*>(to) + row * stride_bytes, from.data[row], static_cast<std::size_t>(from.row_bytes));
    }
}

inline float bf16_at(const Tile& tile, int row, int index) {
    std::uint16_t half;
    std::memcpy(&half, tile.data[row] + 2 * index, 2);
    const std::uint32_t bits = static_cast<std::uint32_t>(half) << 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

inline void multiply(int sums_number, int rows_number, int columns_number) {
    Tile& sums = tile(sums_number);
    const Tile &left = tile(rows_number), &right = tile(columns_number);
    require(sums_number != rows_number && sums_number != columns_number && rows_number != columns_number, "tiles are alike");
    require(sums.rows == left.rows, "sums and left tile differ in rows");
    require(sums.row_bytes == right.row_bytes, "sums and right tile differ in columns");
    require(left.row_bytes == 4 * right.rows, "the tiles do not fit");
    for (int m = 0; m < sums.rows; ++m) {
        for (int n = 0; n < sums.row_bytes / 4; ++n) {
            float even = 0.0f, odd = 0.0f;
            for (int k = 0; k < right.rows; ++k) {
                even = std::fma(bf16_at(left, m, 2 * k), bf16_at(right, k, 2 * n), even);
                odd = std::fma(bf16_at(left, m, 2 * k + 1), bf16_at(right, k, 2 * n + 1), odd);
            }
            float sum;
            std::memcpy(&sum, sums.data[m] + 4 * n, 4);
            sum += even + odd;
            std::memcpy(sums.data[m] + 4 * n, &sum, 4);
        }
    }
}

}  // namespace amx_emulated

#define GRAPHTIDE_TILE_CONFIGURE(shapes) amx_emulated::configure(shapes)
#define GRAPHTIDE_TILE_ZERO(tile) amx_emulated::zero(tile)
#define GRAPHTIDE_TILE_LOAD(tile, from, stride_bytes) amx_emulated::load(tile, from, stride_bytes)
#define GRAPHTIDE_TILE_STORE(tile, to, stride_bytes) amx_emulated::store(tile, to, stride_bytes)
#define GRAPHTIDE_TILE_MULTIPLY(sums, rows, columns) amx_emulated::multiply(sums, rows, columns)
#define GRAPHTIDE_TILE_RELEASE() amx_emulated::is_configured = false
