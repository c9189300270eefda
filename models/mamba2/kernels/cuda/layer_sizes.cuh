// Widths that the kernels of a prefill layer share. Given by plan.py: INNER, STATES, HEAD_CHANNELS, GROUPS.
#pragma once

constexpr int kHeadsOfLayer = INNER / HEAD_CHANNELS;
constexpr int kConvWidth = INNER + 2 * GROUPS * STATES;
constexpr int kProjectedWidth = INNER + kConvWidth + kHeadsOfLayer;  // z, x, B, C, dt
