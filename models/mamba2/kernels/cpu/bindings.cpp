// The Python module `_native`. Arguments are numpy arrays whose values backend.py has checked; their sizes are checked
// here again, because a wrong one would corrupt memory.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <chrono>
#include <limits>
#include <thread>

#include "stack.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using graphtide::Format;
using graphtide::LayerSource;
using graphtide::MatrixSource;
using graphtide::Session;
using graphtide::Sizes;
using graphtide::Stack;
using graphtide::StackSource;

template <class T, class... Options>
using Array = nb::ndarray<T, nb::c_contig, nb::device::cpu, Options...>;
using Vector = Array<const float>;

std::vector<float> to_vector(const Vector& array) { return {array.data(), array.data() + array.size()}; }

template <class T>
MatrixSource matrix(const Array<const T, nb::ndim<2>>& data, Format format, std::vector<float> steps = {}) {
    const std::byte* begin = reinterpret_cast<const std::byte*>(data.data());
    return {
        format, static_cast<int>(data.shape(0)), static_cast<int>(data.shape(1)),
        {begin, begin + data.size() * sizeof(T)}, std::move(steps),
    };
}

void require(bool condition, const char* message) {
    if (!condition) throw std::invalid_argument(message);
}

// Seconds of the fastest of `repeats` calls.
template <class Function>
double fastest(int repeats, Function function) {
    double best = std::numeric_limits<double>::infinity();
    for (int i = 0; i < repeats; ++i) {
        const auto start = std::chrono::steady_clock::now();
        function();
        best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    }
    return best;
}

// Keeps the compiler from dropping what computed `value`.
void keep(float value) { asm volatile("" : : "r"(value) : "memory"); }

// Lets other Python threads run for as long as it lives, as nb::gil_scoped_release does. A thread that comes back while
// the interpreter ends, as only a daemon does, never goes on: Python up to 3.13 makes it exit right here, which unwinds
// the stack; that would meet a function that throws nothing, such as this destructor, and abort the process. So it
// stands still until the process is gone, as from Python 3.14 on.
class Unlocked {
   public:
    Unlocked() : state_(PyEval_SaveThread()) {}
    Unlocked(const Unlocked&) = delete;
    Unlocked& operator=(const Unlocked&) = delete;
    ~Unlocked() {
        try {
            PyEval_RestoreThread(state_);
        } catch (...) {
            for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
        }
    }

   private:
    PyThreadState* state_;
};

constexpr std::size_t kProbeBytes = 8 * graphtide::kUnit * sizeof(float);

std::size_t probe_floats(std::size_t bytes) { return (bytes + kProbeBytes - 1) / kProbeBytes * kProbeBytes / sizeof(float); }

// Seconds in which the memory traffic of a step can pass: read the weights once, change the state once.
double floor_seconds(std::size_t weight_bytes, std::size_t state_bytes, int repeats, const std::string& isa) {
    const graphtide::Kernels& kernels = graphtide::choose_kernels(isa);
    const std::size_t weights = probe_floats(weight_bytes), state = probe_floats(state_bytes);
    graphtide::Arena arena(graphtide::padded_bytes(weights * 4) + graphtide::padded_bytes(state * 4));
    float* read = arena.take<float>(weights);
    float* changed = arena.take<float>(state);
    const Unlocked unlocked;
    return fastest(repeats, [&] {
        if (weights) keep(kernels.read(read, static_cast<long>(weights)));
        if (state) kernels.update(changed, static_cast<long>(state));
    });
}

double multiply_adds_per_second(int repeats, const std::string& isa) {
    const graphtide::Kernels& kernels = graphtide::choose_kernels(isa);
    constexpr long rounds = 100'000;
    const Unlocked unlocked;
    const double seconds = fastest(repeats, [&] { keep(kernels.multiply_add(rounds)); });
    return static_cast<double>(rounds) * 12 * graphtide::kUnit / seconds;
}

}  // namespace

NB_MODULE(_native, module) {
    nb::class_<Sizes>(module, "Sizes")
        .def(
            "__init__",
            [](Sizes* self, int d_model, int n_layers, int d_state, int headdim, int n_heads, int n_groups, int d_conv,
               int n_inputs, int n_outputs, bool feeds_back, int n_opened, float dt_low, float dt_high, float norm_eps) {
                Sizes sizes{};
                sizes.d_model = d_model;
                sizes.n_layers = n_layers;
                sizes.d_state = d_state;
                sizes.headdim = headdim;
                sizes.n_heads = n_heads;
                sizes.n_groups = n_groups;
                sizes.d_conv = d_conv;
                sizes.n_inputs = n_inputs;
                sizes.n_outputs = n_outputs;
                sizes.feeds_back = feeds_back;
                sizes.n_opened = n_opened;
                sizes.dt_low = dt_low;
                sizes.dt_high = dt_high;
                sizes.norm_eps = norm_eps;
                new (self) Sizes(graphtide::complete_sizes(sizes));
            },
            nb::kw_only(), "d_model"_a, "n_layers"_a, "d_state"_a, "headdim"_a, "n_heads"_a, "n_groups"_a, "d_conv"_a,
            "n_inputs"_a, "n_outputs"_a, "feeds_back"_a, "n_opened"_a, "dt_low"_a, "dt_high"_a, "norm_eps"_a
        )
        .def_ro("width", &Sizes::width)
        .def_ro("lanes", &Sizes::lanes)
        .def_ro("states", &Sizes::states)
        .def_ro("inner", &Sizes::inner)
        .def_ro("conv", &Sizes::conv)
        .def_ro("dt", &Sizes::dt)
        .def_ro("proj", &Sizes::proj)
        .def_ro("inputs", &Sizes::inputs)
        .def_ro("outputs", &Sizes::outputs)
        .def_ro("opened", &Sizes::opened);

    nb::class_<MatrixSource>(module, "Matrix")
        .def_static("fp32", [](Array<const float, nb::ndim<2>> data) { return matrix(data, Format::fp32); }, "data"_a)
        .def_static(
            "bf16", [](Array<const std::uint16_t, nb::ndim<2>> data) { return matrix(data, Format::bf16); }, "data"_a
        )
        .def_static(
            "int8",
            [](Array<const std::int8_t, nb::ndim<2>> data, Vector steps) {
                return matrix(data, Format::int8, to_vector(steps));
            },
            "data"_a, "steps"_a
        );

    nb::class_<LayerSource>(module, "Layer")
        .def(
            "__init__",
            [](LayerSource* self, const MatrixSource& in_proj, const MatrixSource& out_proj, Vector conv_weight,
               Vector conv_bias, Vector dt_bias, Vector rate, Vector skip) {
                new (self) LayerSource{
                    in_proj, out_proj, to_vector(conv_weight), to_vector(conv_bias), to_vector(dt_bias),
                    to_vector(rate), to_vector(skip),
                };
            },
            nb::kw_only(), "in_proj"_a, "out_proj"_a, "conv_weight"_a, "conv_bias"_a, "dt_bias"_a, "rate"_a, "skip"_a
        );

    nb::class_<Stack>(module, "Stack")
        .def(
            "__init__",
            [](Stack* self, const Sizes& sizes, const std::vector<LayerSource>& layers, const MatrixSource& embed,
               Vector embed_bias, const MatrixSource& head, Vector head_bias, const MatrixSource* feedback,
               const MatrixSource* returned, Vector returned_bias, const std::string& isa) {
                const MatrixSource none{Format::fp32, 0, 0, {}, {}};
                const StackSource source{
                    layers, embed, head, feedback ? *feedback : none, returned ? *returned : none,
                    to_vector(embed_bias), to_vector(head_bias), to_vector(returned_bias),
                };
                new (self) Stack(sizes, source, graphtide::choose_kernels(isa));
            },
            nb::kw_only(), "sizes"_a, "layers"_a, "embed"_a, "embed_bias"_a, "head"_a, "head_bias"_a,
            "feedback"_a.none(), "returned"_a.none(), "returned_bias"_a, "isa"_a
        )
        .def_prop_ro("isa", [](const Stack& self) { return self.kernels().name; })
        .def_prop_ro("weight_bytes", &Stack::weight_bytes)
        .def_prop_ro("state_bytes", &Stack::state_bytes)
        .def_prop_ro("multiply_adds", &Stack::multiply_adds);

    nb::class_<Session>(module, "Session")
        .def(nb::init<const Stack&, long, int>(), "stack"_a, "batch"_a, "threads"_a, nb::keep_alive<1, 2>())
        .def_prop_rw("threads", &Session::threads, &Session::set_threads)
        .def(
            "load",
            [](Session& self, int layer, Vector conv, Vector ssm) {
                const Sizes& sizes = self.stack().model().sizes;
                const std::size_t inner = static_cast<std::size_t>(sizes.n_heads) * sizes.headdim;
                const std::size_t channels = inner + 2 * static_cast<std::size_t>(sizes.n_groups) * sizes.d_state;
                require(conv.size() == self.batch() * channels * (sizes.d_conv - 1), "conv has the wrong size");
                require(ssm.size() == self.batch() * inner * sizes.d_state, "ssm has the wrong size");
                self.load(layer, conv.data(), ssm.data());
            },
            "layer"_a, "conv"_a, "ssm"_a
        )
        .def(
            "save",
            [](const Session& self, int layer, Array<float> conv, Array<float> ssm) {
                const Sizes& sizes = self.stack().model().sizes;
                const std::size_t inner = static_cast<std::size_t>(sizes.n_heads) * sizes.headdim;
                const std::size_t channels = inner + 2 * static_cast<std::size_t>(sizes.n_groups) * sizes.d_state;
                require(conv.size() == self.batch() * channels * (sizes.d_conv - 1), "conv has the wrong size");
                require(ssm.size() == self.batch() * inner * sizes.d_state, "ssm has the wrong size");
                self.save(layer, conv.data(), ssm.data());
            },
            // Written to: a converted argument would be a copy, and the caller's array would keep what it held.
            "layer"_a, "conv"_a.noconvert(), "ssm"_a.noconvert()
        )
        .def(
            "set_previous",
            [](Session& self, Vector previous) {
                const std::size_t count = self.batch() * static_cast<std::size_t>(self.stack().model().sizes.n_outputs);
                require(previous.size() == count, "previous has the wrong size");
                self.set_previous(previous.data());
            },
            "previous"_a
        )
        .def(
            "advance",
            [](Session& self, Array<const float, nb::ndim<3>> inputs, Array<float, nb::ndim<3>> outputs, long begin,
               long end, bool feed_back) {
                const Sizes& sizes = self.stack().model().sizes;
                const std::size_t batch = static_cast<std::size_t>(self.batch());
                require(inputs.shape(0) == batch && outputs.shape(0) == batch, "the batch is wrong");
                require(inputs.shape(1) == outputs.shape(1), "inputs and outputs differ in steps");
                require(inputs.shape(2) == static_cast<std::size_t>(sizes.n_inputs), "the inputs are too wide or narrow");
                require(outputs.shape(2) == static_cast<std::size_t>(sizes.n_outputs), "the outputs are too wide or narrow");
                const long steps = static_cast<long>(inputs.shape(1));
                const Unlocked unlocked;
                self.advance(inputs.data(), outputs.data(), steps, begin, end, feed_back);
            },
            "inputs"_a, "outputs"_a.noconvert(), "begin"_a, "end"_a, "feed_back"_a
        );

    module.def("usable_kernels", &graphtide::usable_kernels);
    module.def(
        "floor_seconds", &floor_seconds, "weight_bytes"_a, "state_bytes"_a, "repeats"_a = 50, "isa"_a = ""
    );
    module.def("multiply_adds_per_second", &multiply_adds_per_second, "repeats"_a = 20, "isa"_a = "");
}
