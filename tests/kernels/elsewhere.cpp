// The CPU kernels as a program, for a processor or instructions that this machine only emulates: reads a stack and calls of a session from
// standard input, as `elsewhere.py` writes them, and answers on standard output.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "stack.hpp"

#if defined(GRAPHTIDE_ELSEWHERE_KERNELS)
// In place of dispatch.cpp, which would ask the processor.
const graphtide::Kernels& graphtide::choose_kernels(const std::string&) { return *GRAPHTIDE_ELSEWHERE_KERNELS(); }
#endif

namespace {

using namespace graphtide;

void read_bytes(void* to, std::size_t bytes) {
    if (bytes && std::fread(to, 1, bytes, stdin) != bytes) std::exit(2);
}

template <class T>
T take() {
    T value;
    read_bytes(&value, sizeof value);
    return value;
}

template <class T>
std::vector<T> take_all() {
    std::vector<T> values(static_cast<std::size_t>(take<std::int64_t>()));
    read_bytes(values.data(), values.size() * sizeof(T));
    return values;
}

void give(const std::vector<float>& values) {
    std::fwrite(values.data(), sizeof(float), values.size(), stdout);
    std::fflush(stdout);
}

MatrixSource take_matrix() {
    MatrixSource matrix;
    matrix.format = static_cast<Format>(take<std::int32_t>());
    matrix.rows = take<std::int32_t>();
    matrix.columns = take<std::int32_t>();
    matrix.data = take_all<std::byte>();
    matrix.steps = take_all<float>();
    return matrix;
}

Sizes take_sizes() {
    Sizes sizes{};
    for (int* size : {&sizes.d_model, &sizes.n_layers, &sizes.d_state, &sizes.headdim, &sizes.n_heads, &sizes.n_groups,
                      &sizes.d_conv, &sizes.n_inputs, &sizes.n_outputs}) {
        *size = take<std::int32_t>();
    }
    sizes.feeds_back = take<std::int32_t>() != 0;
    sizes.n_opened = take<std::int32_t>();
    for (float* size : {&sizes.dt_low, &sizes.dt_high, &sizes.norm_eps}) *size = take<float>();
    return complete_sizes(sizes);
}

StackSource take_stack(int layers) {
    StackSource source{};
    for (int i = 0; i < layers; ++i) {
        LayerSource layer;
        layer.in_proj = take_matrix();
        layer.out_proj = take_matrix();
        for (auto* vector : {&layer.conv_weight, &layer.conv_bias, &layer.dt_bias, &layer.rate, &layer.skip}) {
            *vector = take_all<float>();
        }
        source.layers.push_back(layer);
    }
    source.embed = take_matrix();
    source.embed_bias = take_all<float>();
    source.head = take_matrix();
    source.head_bias = take_all<float>();
    for (MatrixSource* matrix : {&source.feedback, &source.returned}) {
        if (take<std::int32_t>()) *matrix = take_matrix();
    }
    source.returned_bias = take_all<float>();
    return source;
}

}  // namespace

int main() {
    const Sizes sizes = take_sizes();
    const Stack stack(sizes, take_stack(sizes.n_layers), choose_kernels(""));
    const std::size_t inner = static_cast<std::size_t>(sizes.n_heads) * sizes.headdim;
    const std::size_t channels = inner + 2 * static_cast<std::size_t>(sizes.n_groups) * sizes.d_state;
    std::unique_ptr<Session> session;
    char order;
    while (std::fread(&order, 1, 1, stdin) == 1) {
        if (order == 'n') {
            const int batch = take<std::int32_t>();
            session = std::make_unique<Session>(stack, batch, take<std::int32_t>());
        } else if (order == 'l') {
            const int layer = take<std::int32_t>();
            const std::vector<float> conv = take_all<float>(), ssm = take_all<float>();
            session->load(layer, conv.data(), ssm.data());
        } else if (order == 'p') {
            session->set_previous(take_all<float>().data());
        } else if (order == 'a') {
            const int steps = take<std::int32_t>(), begin = take<std::int32_t>(), end = take<std::int32_t>();
            const bool feed_back = take<std::int32_t>() != 0;
            const std::vector<float> inputs = take_all<float>();
            const std::size_t row = static_cast<std::size_t>(steps) * sizes.n_outputs;
            std::vector<float> outputs(static_cast<std::size_t>(session->batch()) * row);
            session->advance(inputs.data(), outputs.data(), steps, begin, end, feed_back);
            for (std::size_t at = 0; at < outputs.size(); at += row) {
                const auto series = outputs.begin() + static_cast<long>(at);
                give({series + static_cast<long>(begin) * sizes.n_outputs, series + static_cast<long>(end) * sizes.n_outputs});
            }
        } else if (order == 's') {
            const std::size_t batch = static_cast<std::size_t>(session->batch());
            std::vector<float> conv(batch * channels * (sizes.d_conv - 1)), ssm(batch * inner * sizes.d_state);
            session->save(take<std::int32_t>(), conv.data(), ssm.data());
            give(conv);
            give(ssm);
        } else if (order == 't') {
            // Whether small numbers are what they were, out here.
            const volatile float tiny = 1e-40f;
            give({tiny * 1.0f});
        } else {
            return 3;
        }
    }
}
