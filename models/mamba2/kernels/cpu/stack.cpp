#include "stack.hpp"

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <system_error>
#include <thread>

#include <unistd.h>

namespace graphtide {

namespace {

constexpr int kChunkRows = 64;      // rows that share a pass over the weights; their activations fit the L2 cache
constexpr int kGroupStep = 12;      // rows that most kernels take through a product together
constexpr std::size_t kGroupBytes = std::size_t{4} << 20;   // of states that go through all steps of a closed loop together
constexpr int kFirstStepAlone = std::numeric_limits<int>::max();    // steps that share what only the first of all reads
constexpr int kSkew = kUnit;        // keeps rows of a workspace from falling onto the same cache lines

int padded(int count, int unit = kUnit) { return (count + unit - 1) / unit * unit; }

void require(bool condition, const std::string& message) {
    if (!condition) throw std::invalid_argument(message);
}

std::size_t element_bytes(Format format) {
    switch (format) {
        case Format::fp32: return 4;
        case Format::bf16: return 2;
        case Format::int8: return 1;
    }
    throw std::invalid_argument("unknown matrix format");
}

// See Matrix in model.hpp.
template <class T>
void pack_panels(const T* from, T* to, int rows, int columns, int group) {
    constexpr int panel_rows = kPanelUnits * kUnit;
    for (int row = 0; row < rows; ++row) {
        const int panel = row / panel_rows, lane = row % panel_rows;
        const long width = std::min(panel_rows, rows - panel * panel_rows);
        T* base = to + static_cast<long>(panel) * panel_rows * columns;
        for (long k = 0; k < columns; ++k) {
            base[(k / group * width + lane) * group + k % group] = from[static_cast<long>(row) * columns + k];
        }
    }
}

std::size_t source_bytes(const MatrixSource& source) {
    return padded_bytes(source.data.size()) + 2 * padded_bytes(static_cast<std::size_t>(source.rows) * 4);
}

std::size_t source_bytes(const StackSource& source) {
    const auto vector_bytes = [](const std::vector<float>& vector) { return padded_bytes(vector.size() * 4); };
    std::size_t bytes = source_bytes(source.embed) + source_bytes(source.head) + source_bytes(source.feedback) +
                        source_bytes(source.returned) + vector_bytes(source.embed_bias) +
                        vector_bytes(source.head_bias) + vector_bytes(source.returned_bias);
    for (const LayerSource& layer : source.layers) {
        bytes += source_bytes(layer.in_proj) + source_bytes(layer.out_proj) + vector_bytes(layer.conv_weight) +
                 vector_bytes(layer.conv_bias) + vector_bytes(layer.dt_bias) + vector_bytes(layer.rate) +
                 vector_bytes(layer.skip);
    }
    return bytes;
}

// Floats of one row in each part of a workspace.
struct Strides {
    long hidden, normed, projected, gated, plane, rounded;
    explicit Strides(const Sizes& sizes)
        : hidden(sizes.width + kSkew),
          normed(std::max(sizes.width, padded(sizes.inputs)) + kSkew),
          projected(std::max({sizes.proj, sizes.width, sizes.outputs}) + kSkew),
          gated(sizes.inner + kSkew),
          plane(padded(std::max({sizes.width, sizes.inner}), 64)),
          rounded(std::max(sizes.width, sizes.inner) + kSkew) {}
};

std::size_t workspace_bytes(const Sizes& sizes, int capacity) {
    const Strides strides(sizes);
    const std::size_t floats = static_cast<std::size_t>(
        strides.hidden + strides.normed + strides.projected + strides.gated + strides.rounded + sizes.opened +
        2L * sizes.dt + kUnit);
    const std::size_t bytes = capacity * (floats * 4 + 2 * static_cast<std::size_t>(strides.plane) + sizeof(Row));
    return bytes + 32 * kAlignment;
}

Workspace take_workspace(Arena& arena, const Sizes& sizes, int capacity) {
    const Strides strides(sizes);
    const auto floats = [&](long stride) { return arena.take<float>(static_cast<std::size_t>(capacity * stride)); };
    Workspace workspace{};
    workspace.capacity = capacity;
    workspace.hidden = floats(strides.hidden);
    workspace.normed = floats(strides.normed);
    workspace.projected = floats(strides.projected);
    workspace.gated = floats(strides.gated);
    workspace.opening = floats(sizes.opened);
    workspace.step_sizes = floats(sizes.dt);
    workspace.decays = floats(sizes.dt);
    workspace.planes = arena.take<std::uint8_t>(static_cast<std::size_t>(2 * capacity * strides.plane));
    workspace.plane_steps = floats(1);
    workspace.rounded = floats(strides.rounded);
    workspace.rows = arena.take<Row>(static_cast<std::size_t>(capacity));
    workspace.hidden_stride = strides.hidden;
    workspace.normed_stride = strides.normed;
    workspace.projected_stride = strides.projected;
    workspace.gated_stride = strides.gated;
    workspace.plane_stride = strides.plane;
    workspace.rounded_stride = strides.rounded;
    return workspace;
}

std::size_t session_bytes(const Sizes& sizes, long batch, int threads) {
    const std::size_t series = static_cast<std::size_t>(batch);
    return padded_bytes(series * sizes.series_state * 4) + padded_bytes(series * sizes.outputs * 4) +
           padded_bytes(series * sizes.width * 4) + threads * (workspace_bytes(sizes, kChunkRows) + kAlignment);
}

// Series of a closed loop that go through all steps together. If the weights and the states of two or more fit the L2
// cache, as many as do. Else few enough that their states stay in the L3 cache though others use it, and enough that the
// weights are read once for a product's worth of them. How large an L3 is does not count: virtual machines sum up several.
long group_series(const Stack& stack) {
    std::size_t cache_bytes = std::size_t{1} << 20;
#if defined(_SC_LEVEL2_CACHE_SIZE)
    if (const long said = sysconf(_SC_LEVEL2_CACHE_SIZE); said > 0) cache_bytes = static_cast<std::size_t>(said);
#endif
    const std::size_t usable = cache_bytes / 8 * 7;
    if (usable > stack.weight_bytes()) {
        const std::size_t fitting = (usable - stack.weight_bytes()) / stack.state_bytes();
        if (fitting >= 2) return static_cast<long>(std::min<std::size_t>(fitting, kChunkRows));
    }
    const std::size_t fitting = kGroupBytes / stack.state_bytes() / kGroupStep * kGroupStep;
    return static_cast<long>(std::clamp<std::size_t>(fitting, kGroupStep, kChunkRows));
}

}  // namespace

Sizes complete_sizes(Sizes sizes) {
    constexpr int largest = 1 << 20;
    for (const int size : {sizes.d_model, sizes.n_layers, sizes.d_state, sizes.headdim, sizes.n_heads, sizes.n_groups,
                           sizes.n_outputs}) {
        require(size >= 1 && size <= largest, "a size of the stack is out of range");
    }
    require(sizes.d_conv >= 2 && sizes.d_conv <= largest, "d_conv is out of range");
    require(sizes.n_inputs >= 0 && sizes.n_inputs <= largest, "the number of inputs is out of range");
    require(sizes.n_opened >= 0 && sizes.n_opened <= largest, "the number of columns of the opening is out of range");
    const int known = 1 + sizes.n_inputs + (sizes.feeds_back ? sizes.n_outputs : 0);
    require(sizes.n_opened == 0 || sizes.n_opened == known, "an opening has a column for each number it is made of");
    require(sizes.n_heads % sizes.n_groups == 0, "the groups do not divide the heads");
    sizes.width = padded(sizes.d_model);
    sizes.lanes = padded(sizes.headdim);
    sizes.states = padded(sizes.d_state);
    sizes.inner = sizes.n_heads * sizes.lanes;
    sizes.conv = sizes.inner + 2 * sizes.n_groups * sizes.states;
    sizes.dt = padded(sizes.n_heads);
    sizes.proj = sizes.inner + sizes.conv + sizes.dt;
    sizes.inputs = padded(sizes.n_inputs, kColumnGroup);
    sizes.outputs = padded(sizes.n_outputs);
    sizes.opened = padded(sizes.n_opened, kColumnGroup);
    sizes.layer_state = static_cast<long>(sizes.d_conv) * sizes.conv + static_cast<long>(sizes.inner) * sizes.d_state;
    sizes.series_state = sizes.n_layers * sizes.layer_state + kSkew;
    return sizes;
}

Stack::Stack(const Sizes& sizes, const StackSource& source, const Kernels& kernels)
    : kernels_(kernels), arena_(source_bytes(source)) {
    require(static_cast<int>(source.layers.size()) == sizes.n_layers, "the number of layers is wrong");
    model_.sizes = sizes;
    model_.returns = source.returned.rows > 0;
    // In the order of use, so that a step is one pass over memory.
    if (sizes.opened) {
        model_.embed = pack(source.embed, "embed", sizes.width, sizes.opened);
    } else {
        model_.embed = pack(source.embed, "embed", sizes.width, sizes.inputs, kSharedRows);
        model_.embed_bias = copy(source.embed_bias, "embed_bias", sizes.width);
        if (sizes.feeds_back) {
            const int steps = model_.returns ? kFirstStepAlone : 1;
            model_.feedback = pack(source.feedback, "feedback", sizes.width, sizes.outputs, steps);
        }
    }
    for (const LayerSource& layer : source.layers) {
        Layer packed{};
        const int columns = layers_.empty() && sizes.opened ? sizes.opened : sizes.width;
        packed.in_proj = pack(layer.in_proj, "in_proj", sizes.proj, columns);
        packed.conv_weight = copy(layer.conv_weight, "conv_weight", static_cast<std::size_t>(sizes.d_conv) * sizes.conv);
        packed.conv_bias = copy(layer.conv_bias, "conv_bias", sizes.conv);
        packed.dt_bias = copy(layer.dt_bias, "dt_bias", sizes.dt);
        packed.rate = copy(layer.rate, "rate", sizes.dt);
        packed.skip = copy(layer.skip, "skip", sizes.dt);
        packed.out_proj = pack(layer.out_proj, "out_proj", sizes.width, sizes.inner);
        layers_.push_back(packed);
    }
    model_.layers = layers_.data();
    model_.head = pack(source.head, "head", sizes.outputs, sizes.width, model_.returns ? kSharedRows : 1);
    model_.head_bias = copy(source.head_bias, "head_bias", sizes.outputs);
    if (model_.returns) {
        model_.returned = pack(source.returned, "returned", sizes.width, sizes.width);
        model_.returned_bias = copy(source.returned_bias, "returned_bias", sizes.width);
    }
    state_bytes_ = static_cast<std::size_t>(sizes.n_layers) * sizes.layer_state * 4;
}

long Stack::multiply_adds() const {
    const Sizes& sizes = model_.sizes;
    const long inner = static_cast<long>(sizes.n_heads) * sizes.headdim;
    const long projected = 2 * inner + 2L * sizes.n_groups * sizes.d_state + sizes.n_heads;
    const long fed_back = model_.returns ? sizes.d_model : sizes.feeds_back ? sizes.n_outputs : 0;
    const long embedded = sizes.n_opened ? sizes.n_opened : sizes.n_inputs + fed_back;
    const long into_first = sizes.n_opened ? sizes.n_opened : sizes.d_model;
    return sizes.d_model * (embedded + sizes.n_layers * inner + sizes.n_outputs) +
           projected * (into_first + (sizes.n_layers - 1L) * sizes.d_model);
}

Matrix Stack::pack(const MatrixSource& source, const std::string& name, int rows, int columns, int steps) {
    const std::size_t count = static_cast<std::size_t>(rows) * columns;
    require(source.rows == rows && source.columns == columns, name + " has the wrong shape");
    require(source.data.size() == count * element_bytes(source.format), name + " has the wrong size");
    Matrix matrix{source.format, rows, columns, nullptr, nullptr, nullptr};
    switch (source.format) {
        case Format::fp32: {
            float* data = arena_.take<float>(count);
            pack_panels(reinterpret_cast<const float*>(source.data.data()), data, rows, columns, 1);
            matrix.data = data;
            break;
        }
        case Format::bf16: {
            std::uint16_t* data = arena_.take<std::uint16_t>(count);
            pack_panels(reinterpret_cast<const std::uint16_t*>(source.data.data()), data, rows, columns, 2);
            matrix.data = data;
            break;
        }
        case Format::int8: {
            const std::int8_t* from = reinterpret_cast<const std::int8_t*>(source.data.data());
            std::int8_t* data = arena_.take<std::int8_t>(count);
            pack_panels(from, data, rows, columns, 4);
            std::int32_t* sums = arena_.take<std::int32_t>(rows);
            for (int row = 0; row < rows; ++row) {
                for (int k = 0; k < columns; ++k) sums[row] += 128 * from[static_cast<long>(row) * columns + k];
            }
            matrix.data = data;
            matrix.sums = sums;
            matrix.steps = copy(source.steps, name + " steps", rows);
            break;
        }
    }
    weight_bytes_ += padded_bytes(source.data.size()) / static_cast<std::size_t>(steps);
    return matrix;
}

const float* Stack::copy(const std::vector<float>& source, const std::string& name, std::size_t count) {
    require(source.size() == count, name + " has the wrong size");
    float* to = arena_.take<float>(count);
    std::copy(source.begin(), source.end(), to);
    weight_bytes_ += padded_bytes(count * 4);
    return to;
}

Session::Session(const Stack& stack, long batch, int threads)
    : stack_(stack),
      batch_(batch),
      threads_(threads),
      group_(group_series(stack)),
      arena_((require(batch >= 1 && threads >= 1, "a session needs series and threads"),
              session_bytes(stack.model().sizes, batch, threads))) {
    const Sizes& sizes = stack.model().sizes;
    states_ = arena_.take<float>(static_cast<std::size_t>(batch) * sizes.series_state);
    previous_ = arena_.take<float>(static_cast<std::size_t>(batch) * sizes.outputs);
    fed_ = arena_.take<float>(static_cast<std::size_t>(batch) * sizes.width);
    cursors_.assign(static_cast<std::size_t>(batch), Cursor{0, false});
    for (int i = 0; i < threads; ++i) workspaces_.push_back(take_workspace(arena_, sizes, kChunkRows));
}

void Session::set_threads(int threads) {
    require(threads >= 1, "a session needs threads");
    const Sizes& sizes = stack_.model().sizes;
    while (static_cast<long>(workspaces_.size()) < std::min<long>(threads, batch_)) {
        later_.emplace_back(workspace_bytes(sizes, kChunkRows) + kAlignment);
        workspaces_.push_back(take_workspace(later_.back(), sizes, kChunkRows));
    }
    threads_ = threads;
}

template <class Visit>
void Session::each_channel(Visit visit) const {
    const Sizes& sizes = stack_.model().sizes;
    long channel = 0;
    for (int head = 0; head < sizes.n_heads; ++head) {
        for (int lane = 0; lane < sizes.headdim; ++lane) visit(channel++, static_cast<long>(head) * sizes.lanes + lane);
    }
    for (int map = 0; map < 2 * sizes.n_groups; ++map) {
        for (int n = 0; n < sizes.d_state; ++n) visit(channel++, sizes.inner + static_cast<long>(map) * sizes.states + n);
    }
}

void Session::load(int layer, const float* conv, const float* ssm) {
    const Sizes& sizes = stack_.model().sizes;
    require(layer >= 0 && layer < sizes.n_layers, "no such layer");
    const int kept = sizes.d_conv - 1;
    const long channels =
        static_cast<long>(sizes.n_heads) * sizes.headdim + 2L * sizes.n_groups * sizes.d_state;
    for (long series = 0; series < batch_; ++series) {
        float* ring = states_ + series * sizes.series_state + layer * sizes.layer_state;
        // The slot that is written next is the series' own; the last inputs lie in the slots before it.
        each_channel([&](long channel, long to) {
            for (int i = 0; i < kept; ++i) {
                const int slot = (cursors_[series].slot + 1 + i) % sizes.d_conv;
                ring[static_cast<long>(slot) * sizes.conv + to] = conv[(series * channels + channel) * kept + i];
            }
        });
        float* state = ring + static_cast<long>(sizes.d_conv) * sizes.conv;
        const float* from = ssm + series * sizes.n_heads * sizes.headdim * sizes.d_state;
        for (int head = 0; head < sizes.n_heads; ++head) {
            for (int lane = 0; lane < sizes.headdim; ++lane) {
                for (int n = 0; n < sizes.d_state; ++n) {
                    state[(static_cast<long>(head) * sizes.d_state + n) * sizes.lanes + lane] = *from++;
                }
            }
        }
    }
}

void Session::save(int layer, float* conv, float* ssm) const {
    const Sizes& sizes = stack_.model().sizes;
    require(layer >= 0 && layer < sizes.n_layers, "no such layer");
    const int kept = sizes.d_conv - 1;
    const long channels =
        static_cast<long>(sizes.n_heads) * sizes.headdim + 2L * sizes.n_groups * sizes.d_state;
    for (long series = 0; series < batch_; ++series) {
        const float* ring = states_ + series * sizes.series_state + layer * sizes.layer_state;
        each_channel([&](long channel, long from) {
            for (int i = 0; i < kept; ++i) {
                const int slot = (cursors_[series].slot + 1 + i) % sizes.d_conv;
                conv[(series * channels + channel) * kept + i] = ring[static_cast<long>(slot) * sizes.conv + from];
            }
        });
        const float* state = ring + static_cast<long>(sizes.d_conv) * sizes.conv;
        float* to = ssm + series * sizes.n_heads * sizes.headdim * sizes.d_state;
        for (int head = 0; head < sizes.n_heads; ++head) {
            for (int lane = 0; lane < sizes.headdim; ++lane) {
                for (int n = 0; n < sizes.d_state; ++n) {
                    *to++ = state[(static_cast<long>(head) * sizes.d_state + n) * sizes.lanes + lane];
                }
            }
        }
    }
}

void Session::set_previous(const float* previous) {
    const Sizes& sizes = stack_.model().sizes;
    for (long series = 0; series < batch_; ++series) {
        cursors_[series].fed = false;
        std::copy_n(previous + series * sizes.n_outputs, sizes.n_outputs, previous_ + series * sizes.outputs);
    }
}

void Session::advance(const float* inputs, float* outputs, long steps, long begin, long end, bool feed_back) {
    require(0 <= begin && begin <= end && end <= steps, "the steps are out of range");
    const Model& model = stack_.model();
    const Sizes& sizes = model.sizes;
    require(!feed_back || sizes.feeds_back, "the stack has no feedback");
    const long workers = std::min<long>(threads_, batch_);
    const auto work = [&](long worker) {
        const long first = batch_ * worker / workers, last = batch_ * (worker + 1) / workers;
        Call call{};
        call.model = &model;
        call.workspace = &workspaces_[static_cast<std::size_t>(worker)];
        call.states = states_ + first * sizes.series_state;
        call.cursors = cursors_.data() + first;
        call.previous = previous_ + first * sizes.outputs;
        call.fed = fed_ + first * sizes.width;
        call.inputs = inputs + first * steps * sizes.n_inputs;
        call.outputs = outputs + first * steps * sizes.n_outputs;
        call.batch = last - first;
        call.steps = steps;
        call.begin = begin;
        call.end = end;
        call.group = group_;
        call.feed_back = feed_back;
        stack_.kernels().advance(call);
    };
    std::vector<std::thread> others;
    long started = 1;
    try {
        for (; started < workers; ++started) others.emplace_back(work, started);
    } catch (const std::system_error&) {
        // The machine gives no more threads: this one does the rest.
    }
    work(0);
    for (; started < workers; ++started) work(started);
    for (std::thread& other : others) other.join();
}

}  // namespace graphtide
