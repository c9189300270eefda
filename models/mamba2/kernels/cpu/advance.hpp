// Steps of many series through a whole stack, in the order that keeps weights or states in the cache.
#pragma once

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

namespace graphtide::GRAPHTIDE_ISA {

// Numbers below the normal range count as zero while it lives: a state that fades away must not slow its series down.
class FlushTiny {
  public:
#if defined(__SSE__)
    FlushTiny() : before_(_mm_getcsr()) { _mm_setcsr(before_ | 0x8040u); }
    ~FlushTiny() { _mm_setcsr(before_); }

  private:
    unsigned before_;
#elif defined(__aarch64__)
    FlushTiny() {
        asm volatile("mrs %0, fpcr" : "=r"(before_));
        asm volatile("msr fpcr, %0" : : "r"(before_ | (1ull << 24)));
    }
    ~FlushTiny() { asm volatile("msr fpcr, %0" : : "r"(before_)); }

  private:
    unsigned long long before_;
#else
    FlushTiny() {}
#endif
  public:
    FlushTiny(const FlushTiny&) = delete;
    FlushTiny& operator=(const FlushTiny&) = delete;
};

inline void add_rows(float* to, long to_stride, const float* from, long from_stride, int width, int count) {
    for (int r = 0; r < count; ++r) {
        for (int i = 0; i < width; i += kUnit) {
            float* at = to + r * to_stride + i;
            store(at, add(load(at), load(from + r * from_stride + i)));
        }
    }
}

// The embedding of row r is that of step `step + r * step_by` of series `series + r * series_by`.
struct Place {
    long series, series_by, step, step_by;
    long at(int r, const Call& call) const { return (series + r * series_by) * call.steps + step + r * step_by; }
};

inline void embed_rows(const Call& call, const Place& place, int count) {
    const Model& model = *call.model;
    const Sizes& sizes = model.sizes;
    Workspace& workspace = *call.workspace;
    for (int r = 0; r < count; ++r) {
        float* padded = workspace.normed + r * workspace.normed_stride;
        const float* input = call.inputs + place.at(r, call) * sizes.n_inputs;
        for (int i = 0; i < sizes.n_inputs; ++i) padded[i] = input[i];
        for (int i = sizes.n_inputs; i < sizes.inputs; ++i) padded[i] = 0.0f;
    }
    multiply_rows(
        model.embed, workspace.normed, workspace.normed_stride, workspace.hidden, workspace.hidden_stride, count,
        workspace
    );
    add_rows(workspace.hidden, workspace.hidden_stride, model.embed_bias, 0, sizes.width, count);
    if (call.feed_back) {
        multiply_rows(
            model.feedback, call.previous + place.series * sizes.outputs, sizes.outputs, workspace.projected,
            workspace.projected_stride, count, workspace
        );
        add_rows(
            workspace.hidden, workspace.hidden_stride, workspace.projected, workspace.projected_stride, sizes.width,
            count
        );
    }
}

inline void read_outputs(const Call& call, const Place& place, int count) {
    const Model& model = *call.model;
    const Sizes& sizes = model.sizes;
    Workspace& workspace = *call.workspace;
    for (int r = 0; r < count; ++r) {
        normalise(
            workspace.hidden + r * workspace.hidden_stride, workspace.normed + r * workspace.normed_stride, sizes.width,
            sizes.d_model, sizes.norm_eps
        );
    }
    multiply_rows(
        model.head, workspace.normed, workspace.normed_stride, workspace.projected, workspace.projected_stride, count,
        workspace
    );
    add_rows(workspace.projected, workspace.projected_stride, model.head_bias, 0, sizes.outputs, count);
    for (int r = 0; r < count; ++r) {
        const float* from = workspace.projected + r * workspace.projected_stride;
        float* to = call.outputs + place.at(r, call) * sizes.n_outputs;
        for (int i = 0; i < sizes.n_outputs; ++i) to[i] = from[i];
        if (call.feed_back) {
            float* previous = call.previous + (place.series + r) * sizes.outputs;
            for (int i = 0; i < sizes.outputs; i += kUnit) store(previous + i, load(from + i));
        }
    }
}

// Known inputs: many steps of one series share each pass over the weights.
inline void advance_along(const Call& call) {
    const Sizes& sizes = call.model->sizes;
    Workspace& workspace = *call.workspace;
    for (long series = 0; series < call.batch; ++series) {
        for (long step = call.begin; step < call.end; step += workspace.capacity) {
            const long left = call.end - step;
            const int count = static_cast<int>(left < workspace.capacity ? left : workspace.capacity);
            for (int r = 0; r < count; ++r) {
                const int slot = static_cast<int>((call.slots[series] + r) % sizes.d_conv);
                workspace.rows[r] = {call.states + series * sizes.series_state, slot};
            }
            const Place place{series, 0, step, 1};
            embed_rows(call, place, count);
            for (int layer = 0; layer < sizes.n_layers; ++layer) run_layer(*call.model, layer, workspace, 0, count);
            read_outputs(call, place, count);
            call.slots[series] = (call.slots[series] + count) % sizes.d_conv;
        }
    }
}

// A closed loop, or a few steps of many series: one step of many series shares each pass over the weights.
inline void advance_across(const Call& call) {
    const Sizes& sizes = call.model->sizes;
    Workspace& workspace = *call.workspace;
    constexpr int tile_series = 2 * kTileRows;
    for (long series = 0; series < call.batch; series += call.group) {
        const long left = call.batch - series;
        const int count = static_cast<int>(left < call.group ? left : call.group);
        for (long step = call.begin; step < call.end; ++step) {
            for (int r = 0; r < count; ++r) {
                workspace.rows[r] = {call.states + (series + r) * sizes.series_state, call.slots[series + r]};
                call.slots[series + r] = (call.slots[series + r] + 1) % sizes.d_conv;
            }
            const Place place{series, 1, step, 0};
            embed_rows(call, place, count);
            for (int layer = 0; layer < sizes.n_layers; ++layer) {
                for (int first = 0; first < count; first += tile_series) {
                    const int rows = count - first < tile_series ? count - first : tile_series;
                    run_layer(*call.model, layer, workspace, first, rows);
                }
            }
            read_outputs(call, place, count);
        }
    }
}

inline void advance(const Call& call) {
    const FlushTiny flush_tiny;
    const bool few_steps = call.batch > 1 && call.end - call.begin < kTileRows;
    if (call.feed_back || few_steps) {
        advance_across(call);
    } else {
        advance_along(call);
    }
}

}  // namespace graphtide::GRAPHTIDE_ISA
