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

// Row r of `count` series is that of step `step + r / count` of series `series + r % count`.
struct Place {
    long series, count, step;
    long at(int r, const Call& call) const { return (series + r % count) * call.steps + step + r / count; }
};

// What goes into the first layer of rows `first` to `first + count` of the workspace, which have this place: all of it where
// the stack is opened, else all but what is fed back.
inline void embed_rows(const Call& call, const Place& place, int first, int count) {
    const Model& model = *call.model;
    const Sizes& sizes = model.sizes;
    Workspace& workspace = *call.workspace;
    float* hidden = workspace.hidden + first * workspace.hidden_stride;
    if (sizes.opened) {
        float* opening = workspace.opening + static_cast<long>(first) * sizes.opened;
        for (int r = 0; r < count; ++r) {
            float* to = opening + static_cast<long>(r) * sizes.opened;
            const float* input = call.inputs + place.at(r, call) * sizes.n_inputs;
            int column = 0;
            to[column++] = 1.0f;
            for (int i = 0; i < sizes.n_inputs; ++i) to[column++] = input[i];
            if (call.feed_back) {
                const float* previous = call.previous + (place.series + r) * sizes.outputs;
                for (int i = 0; i < sizes.n_outputs; ++i) to[column++] = previous[i];
            }
            for (; column < sizes.opened; ++column) to[column] = 0.0f;
        }
        multiply_rows(model.embed, opening, sizes.opened, hidden, workspace.hidden_stride, count, workspace);
        return;
    }
    for (int r = 0; r < count; ++r) {
        float* padded = workspace.normed + r * workspace.normed_stride;
        const float* input = call.inputs + place.at(r, call) * sizes.n_inputs;
        for (int i = 0; i < sizes.n_inputs; ++i) padded[i] = input[i];
        for (int i = sizes.n_inputs; i < sizes.inputs; ++i) padded[i] = 0.0f;
    }
    multiply_rows(
        model.embed, workspace.normed, workspace.normed_stride, hidden, workspace.hidden_stride, count, workspace
    );
    add_rows(hidden, workspace.hidden_stride, model.embed_bias, 0, sizes.width, count);
}

inline void read_outputs(const Call& call, const Place& place, int first, int count) {
    const Model& model = *call.model;
    const Sizes& sizes = model.sizes;
    Workspace& workspace = *call.workspace;
    for (int r = 0; r < count; ++r) {
        normalise(
            workspace.hidden + (first + r) * workspace.hidden_stride, workspace.normed + r * workspace.normed_stride,
            sizes.width, sizes.d_model, sizes.norm_eps
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
    }
}

// Adds what a step of a closed loop gets from the one before; an opening has it already.
inline void take_fed(const Call& call, long series, int first, int count) {
    const Model& model = *call.model;
    const Sizes& sizes = model.sizes;
    Workspace& workspace = *call.workspace;
    if (sizes.opened) return;
    float* hidden = workspace.hidden + first * workspace.hidden_stride;
    if (call.cursors[series].fed) {
        add_rows(hidden, workspace.hidden_stride, call.fed + series * sizes.width, sizes.width, sizes.width, count);
        return;
    }
    multiply_rows(
        model.feedback, call.previous + series * sizes.outputs, sizes.outputs, workspace.projected,
        workspace.projected_stride, count, workspace
    );
    add_rows(hidden, workspace.hidden_stride, workspace.projected, workspace.projected_stride, sizes.width, count);
}

// Keeps what a step of a closed loop, which has this place, gives to the next one.
inline void give_fed(const Call& call, const Place& place, int first, int count) {
    const Model& model = *call.model;
    const Sizes& sizes = model.sizes;
    Workspace& workspace = *call.workspace;
    if (!model.returns) {
        read_outputs(call, place, first, count);
        for (int r = 0; r < count; ++r) {
            const float* from = workspace.projected + r * workspace.projected_stride;
            float* previous = call.previous + (place.series + r) * sizes.outputs;
            for (int i = 0; i < sizes.outputs; i += kUnit) store(previous + i, load(from + i));
        }
        return;
    }
    for (int r = 0; r < count; ++r) {
        normalise(
            workspace.hidden + (first + r) * workspace.hidden_stride, workspace.normed + r * workspace.normed_stride,
            sizes.width, sizes.d_model, sizes.norm_eps
        );
        call.cursors[place.series + r].fed = true;
    }
    float* fed = call.fed + place.series * sizes.width;
    multiply_rows(model.returned, workspace.normed, workspace.normed_stride, fed, sizes.width, count, workspace);
    add_rows(fed, sizes.width, model.returned_bias, 0, sizes.width, count);
}

// Known inputs: many steps of one series share each pass over the weights.
inline void advance_along(const Call& call) {
    const Sizes& sizes = call.model->sizes;
    Workspace& workspace = *call.workspace;
    for (long series = 0; series < call.batch; ++series) {
        Cursor& cursor = call.cursors[series];
        for (long step = call.begin; step < call.end; step += workspace.capacity) {
            const long left = call.end - step;
            const int count = static_cast<int>(left < workspace.capacity ? left : workspace.capacity);
            for (int r = 0; r < count; ++r) {
                workspace.rows[r] = {call.states + series * sizes.series_state, (cursor.slot + r) % sizes.d_conv};
            }
            const Place place{series, 1, step};
            embed_rows(call, place, 0, count);
            for (int layer = 0; layer < sizes.n_layers; ++layer) run_layer(*call.model, layer, workspace, 0, count);
            read_outputs(call, place, 0, count);
            cursor.slot = (cursor.slot + count) % sizes.d_conv;
        }
    }
}

// A closed loop, or a few steps of many series: one step of many series shares each pass over the weights. Several steps of
// a few series share what does not wait for the step before: the embedding of known inputs, and outputs that nothing waits for.
inline void advance_across(const Call& call) {
    const Sizes& sizes = call.model->sizes;
    Workspace& workspace = *call.workspace;
    constexpr int tile_series = 2 * kTileRows;
    for (long series = 0; series < call.batch; series += call.group) {
        const long left = call.batch - series;
        const int count = static_cast<int>(left < call.group ? left : call.group);
        const bool waits = sizes.opened && call.feed_back;
        const long block = waits || count > kSharedRows ? 1 : kSharedRows / count;
        for (long begin = call.begin; begin < call.end; begin += block) {
            const int steps = static_cast<int>(call.end - begin < block ? call.end - begin : block);
            const Place place{series, count, begin};
            embed_rows(call, place, 0, steps * count);
            for (int s = 0; s < steps; ++s) {
                const int first = s * count;
                for (int r = 0; r < count; ++r) {
                    Cursor& cursor = call.cursors[series + r];
                    workspace.rows[first + r] = {call.states + (series + r) * sizes.series_state, cursor.slot};
                    cursor.slot = (cursor.slot + 1) % sizes.d_conv;
                }
                if (call.feed_back) take_fed(call, series, first, count);
                for (int layer = 0; layer < sizes.n_layers; ++layer) {
                    for (int tile = 0; tile < count; tile += tile_series) {
                        const int rows = count - tile < tile_series ? count - tile : tile_series;
                        run_layer(*call.model, layer, workspace, first + tile, rows);
                    }
                }
                if (call.feed_back) give_fed(call, {series, count, begin + s}, first, count);
            }
            if (!call.feed_back || call.model->returns) read_outputs(call, place, 0, steps * count);
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
