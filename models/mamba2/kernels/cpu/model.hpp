// A packed Mamba2 stack and the state of a series, as all kernels see them. Plain data: no code of this file may differ
// between translation units that are compiled for different instruction sets.
//
// Every vector is padded with zeros to whole units of 16 floats, so that kernels have no tails:
//   width   channels of the residual stream        lanes   channels of one head
//   states  states of one group's B or C           inner   lanes of all heads
//   conv    x (inner), B, C (groups * states each) proj    z (inner), conv, dt (heads, padded)
#pragma once

#include <cstdint>

namespace graphtide {

constexpr int kUnit = 16;           // floats of a unit
constexpr int kPanelUnits = 4;      // units of a panel: rows of a matrix that are stored together
constexpr int kColumnGroup = 4;     // columns are padded to a multiple of this
constexpr int kSharedRows = 16;     // of several steps of a closed loop, that share what does not wait for the step before

enum class Format : int { fp32, bf16, int8 };

// Rows are cut into panels of 64; a panel holds, column by column, its rows side by side ([64] fp32), with two columns
// interleaved ([64][2] bf16) or four ([64][4] int8). The last panel may be 16, 32 or 48 rows wide.
struct Matrix {
    Format format;
    int rows;                       // multiple of kUnit
    int columns;                    // multiple of kColumnGroup
    const void* data;
    const float* steps;             // int8: size of a step of each row
    const std::int32_t* sums;       // int8: 128 times the sum of each row's steps
};

struct Layer {
    Matrix in_proj;                 // [proj, width], norm weight folded in; [proj, opened] of the first layer if opened
    Matrix out_proj;                // [width, inner], gated norm weight folded in
    const float* conv_weight;       // [taps][conv]
    const float* conv_bias;         // [conv]
    const float* dt_bias;           // [heads, padded]
    const float* rate;              // [heads, padded]: -exp(A_log)
    const float* skip;              // [heads, padded]: D
};

struct Sizes {
    int d_model, n_layers, d_state, headdim, n_heads, n_groups, d_conv, n_inputs, n_outputs;
    bool feeds_back;
    int n_opened;                   // columns of the opening, 0 if there is none
    float dt_low, dt_high, norm_eps;
    int width, lanes, states, inner, conv, dt, proj, inputs, outputs, opened;  // padded; see above
    long layer_state;               // floats of one layer's state: conv ring [taps][conv], ssm [heads][d_state][lanes]
    long series_state;              // floats of one series' state
};

// The opening: what goes into the first layer is linear in a 1, the known inputs and the outputs of the step before. Where
// these are few, `embed` has a column for each, and the first in_proj, multiplied by that, takes them too.
//
// The return: what a step feeds to the next one is linear in the normed hidden state that its outputs are read from. Where
// the outputs are many, it is taken from that, and the outputs of many steps are read together.
struct Model {
    Sizes sizes;
    const Layer* layers;
    Matrix embed;                   // [width, inputs]; [width, opened] if opened
    const float* embed_bias;        // [width]; part of embed if opened
    Matrix head;                    // [outputs, width], final norm folded in
    const float* head_bias;         // [outputs]
    Matrix feedback;                // [width, outputs] if the stack feeds back; part of embed if opened
    bool returns;
    Matrix returned;                // [width, width] if returns: feedback times head
    const float* returned_bias;     // [width]
};

// Rows that go through the stack together: distinct series at one step each, or consecutive steps of one series.
struct Row {
    float* state;                   // [layers][layer_state] of the row's series
    int slot;                       // slot of the convolution ring that takes the row's input
};

// Where a series is.
struct Cursor {
    int slot;                       // of its next row
    bool fed;                       // whether Call.fed holds what the step before feeds back, or Call.previous its outputs
};

struct Workspace {
    int capacity;                   // rows
    float* hidden;                  // [capacity][hidden_stride]
    float* normed;                  // [capacity][normed_stride]
    float* projected;               // [capacity][projected_stride]
    float* gated;                   // [capacity][gated_stride]
    float* opening;                 // [capacity][sizes.opened]
    float* step_sizes;              // [capacity][sizes.dt]
    float* decays;                  // [capacity][sizes.dt]
    std::uint8_t* planes;           // [capacity][2][plane_stride]: high and low bytes of 16-bit activations, or these
    float* plane_steps;             // [capacity]
    float* rounded;                 // [capacity][rounded_stride]: bf16 activations, as floats or as what they are
    Row* rows;                      // [capacity]
    long hidden_stride, normed_stride, projected_stride, gated_stride, plane_stride, rounded_stride;
};

// The steps `begin` to `end` of `batch` series, all of one stack.
struct Call {
    const Model* model;
    Workspace* workspace;
    float* states;                  // [batch][series_state]
    Cursor* cursors;                // [batch]
    float* previous;                // [batch][sizes.outputs]: outputs of the step before
    float* fed;                     // [batch][sizes.width]: what that step feeds back if the model returns
    const float* inputs;            // [batch][steps][n_inputs]
    float* outputs;                 // [batch][steps][n_outputs]
    long batch, steps, begin, end;
    long group;                     // series of a closed loop that run all steps before the next ones start
    bool feed_back;
};

// What one translation unit offers, compiled for its instruction set.
struct Kernels {
    const char* name;
    void (*advance)(const Call&);
    float (*read)(const float* data, long count);       // sum, at the rate at which memory delivers
    void (*update)(float* data, long count);            // read, change and write back
    float (*multiply_add)(long rounds);                  // 12 * 16 fused multiply-adds a round, as many at a time as registers hold
};

const Kernels* portable_kernels();
const Kernels* avx2_kernels();
const Kernels* avx512_kernels();
const Kernels* avx512_vnni_kernels();
const Kernels* avx512_bf16_kernels();
const Kernels* avx512_amx_kernels();

}  // namespace graphtide
