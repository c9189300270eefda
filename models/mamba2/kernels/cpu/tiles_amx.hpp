// The tile registers of AMX. Their numbers are part of an instruction, hence macros.
#pragma once

#include <immintrin.h>

#define GRAPHTIDE_TILE_CONFIGURE(shapes) _tile_loadconfig(shapes)
#define GRAPHTIDE_TILE_ZERO(tile) _tile_zero(tile)
#define GRAPHTIDE_TILE_LOAD(tile, from, stride_bytes) _tile_loadd(tile, from, stride_bytes)
#define GRAPHTIDE_TILE_STORE(tile, to, stride_bytes) _tile_stored(tile, to, stride_bytes)
#define GRAPHTIDE_TILE_MULTIPLY(sums, rows, columns) _tile_dpbf16ps(sums, rows, columns)
#define GRAPHTIDE_TILE_RELEASE() _tile_release()
