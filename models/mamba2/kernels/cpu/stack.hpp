// Stacks that own their packed weights, and sessions that own the states of a batch of series.
#pragma once

#include <cstddef>
#include <list>
#include <string>
#include <vector>

#include "memory.hpp"
#include "model.hpp"

namespace graphtide {

// A matrix as it comes: [rows, columns], row by row; both sizes padded (see model.hpp).
struct MatrixSource {
    Format format;
    int rows, columns;
    std::vector<std::byte> data;
    std::vector<float> steps;       // int8 only: [rows]
};

struct LayerSource {
    MatrixSource in_proj, out_proj;
    std::vector<float> conv_weight, conv_bias, dt_bias, rate, skip;
};

struct StackSource {
    std::vector<LayerSource> layers;
    MatrixSource embed, head;
    MatrixSource feedback, returned;            // of no rows where the model has none
    std::vector<float> embed_bias, head_bias, returned_bias;
};

// Fills in the padded sizes. Throws std::invalid_argument where a size is out of range.
Sizes complete_sizes(Sizes sizes);

class Stack {
  public:
    // Throws std::invalid_argument where a tensor does not have the size that `sizes` asks for.
    Stack(const Sizes& sizes, const StackSource& source, const Kernels& kernels);

    const Model& model() const { return model_; }
    const Kernels& kernels() const { return kernels_; }
    // What a step of one series, which is alone in a closed loop, reads of the weights, and reads and writes of its state.
    std::size_t weight_bytes() const { return weight_bytes_; }
    std::size_t state_bytes() const { return state_bytes_; }
    // Of a step of each of many series, in products of matrices, without padding.
    long multiply_adds() const;

  private:
    // `steps` of a closed loop of one series share what they read of the matrix.
    Matrix pack(const MatrixSource& source, const std::string& name, int rows, int columns, int steps = 1);
    const float* copy(const std::vector<float>& source, const std::string& name, std::size_t count);

    const Kernels& kernels_;
    Arena arena_;
    std::vector<Layer> layers_;
    Model model_;
    std::size_t weight_bytes_ = 0;
    std::size_t state_bytes_ = 0;
};

class Session {
  public:
    // `threads` workers share the batch; the results do not depend on their number.
    Session(const Stack& stack, long batch, int threads);

    // How many share the next steps; those beyond the first ones get memory of their own.
    void set_threads(int threads);
    int threads() const { return threads_; }

    // conv [batch][channels][d_conv - 1], oldest first, and ssm [batch][heads][headdim][d_state] of one layer.
    void load(int layer, const float* conv, const float* ssm);
    void save(int layer, float* conv, float* ssm) const;
    void set_previous(const float* previous);   // [batch][n_outputs]

    // Runs steps `begin` to `end` of inputs [batch][steps][n_inputs] into outputs [batch][steps][n_outputs].
    void advance(const float* inputs, float* outputs, long steps, long begin, long end, bool feed_back);

    const Stack& stack() const { return stack_; }
    long batch() const { return batch_; }

  private:
    // Calls visit(channel of the tensor, channel of the ring) for each channel of the convolution.
    template <class Visit>
    void each_channel(Visit visit) const;

    const Stack& stack_;
    long batch_;
    int threads_;
    long group_;
    Arena arena_;
    float* states_;
    float* previous_;
    float* fed_;
    std::vector<Cursor> cursors_;
    std::vector<Workspace> workspaces_;
    std::list<Arena> later_;        // of the workspaces of threads that came later
};

// The kernels to use: GRAPHTIDE_CPU_ISA's (`forced`, empty for none), else the best this processor has.
// Throws std::invalid_argument if the forced ones are unknown, not built or not supported here.
const Kernels& choose_kernels(const std::string& forced);

// The names of the kernels that can run here, best first.
std::vector<std::string> usable_kernels();

}  // namespace graphtide
