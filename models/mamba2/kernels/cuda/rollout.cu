// A whole rollout in one launch: a cluster of blocks steps a few series through all layers, thousands of times.
//
// Every block owns a slice of the inner channels of every layer: their rows of in_proj, their convolution, their part of
// the state and their columns of out_proj. Three exchanges through distributed shared memory join the slices in a layer:
// B and C after the convolution; the partial sums of out_proj, each to the block that adds up its row; the stream's rows,
// to all. Two more of the last kind join the embedding of the next step. What is sent is counted where it arrives, and
// waited for there. Weights of the first RESIDENT_LAYERS layers stay in shared memory, the others come from L2. The scale
// of the gated norm is applied after out_proj, and norm weights are folded into the matrices, so that no norm costs an
// exchange; the roots of mean squares come with the products that read the stream.
//
// Series of one launch never meet; the bits of one do not depend on SERIES or on its neighbours.
#include "rollout_steps.cuh"

namespace {

// A known input of this block: the `item`-th of its kKnown * SERIES; 0 beyond the last.
DEVICE float known_input(const Slice& slice, const float* inputs, int steps, int step, int item) {
    const int slot = item / kKnown, input = slice.rank * kKnown + item % kKnown;
    if (input >= INPUTS) return 0.0f;
    return inputs[(static_cast<size_t>(slice.series(slot)) * steps + step) * INPUTS + input];
}

DEVICE void feed_known(const Memory& memory, int item, float value) {
    memory.fed[item / kKnown * kFedLength + (FEEDBACK ? kOutputs : 0) + item % kKnown] = value;
}

// Everything that lies in shared memory from step to step.
DEVICE void set_up(const Memory& memory, const Slice& slice, const float* constants, const float* windows) {
    // Padding takes part in products, so it must be zero.
    for (int word = threadIdx.x; word < kZeroedFloats; word += THREADS) memory.stream[word] = 0.0f;
    for (int word = threadIdx.x; word < kBlockConstants; word += THREADS)
        memory.constants[word] = constants[static_cast<size_t>(slice.rank) * kBlockConstants + word];
    for (int word = threadIdx.x; word < kResidentWeights; word += THREADS) memory.weights[word] = slice.weights[word];
    for (int item = threadIdx.x; item < LAYERS * SERIES * kConvChannels; item += THREADS) {
        const int local = item % kConvChannels, slot = item / kConvChannels % SERIES;
        const size_t from = window_offset(slice, item / (kConvChannels * SERIES), slot, local);
        for (int tap = 0; tap < TAPS - 1; ++tap) memory.windows[item * (TAPS - 1) + tap] = windows[from + tap];
    }
}

// Ask the host whether to go on, in all blocks alike.
DEVICE bool must_stop(const Memory& memory, const Slice& slice, const int* cancel) {
    if (slice.rank == 0 && threadIdx.x == 0) {
        const float wish = read_host(cancel) != 0 ? 1.0f : 0.0f;
        for (int rank = 0; rank < CLUSTER; ++rank) store_remote(memory.stop, 0, rank, wish);
    }
    cluster_barrier();
    return memory.stop[0] != 0.0f;
}

}  // namespace

// weights       [CLUSTER][kBlockWeights], constants [CLUSTER][kBlockConstants]: see packing.py
// inputs        [batch][steps][INPUTS], previous [batch][OUTPUTS] (null in an open loop)
// windows, ssm  [LAYERS][batch][...], in and out; they may be the same memory
// outputs       [batch][steps][OUTPUTS]
// cancel        a word of host memory, looked at every `poll_steps` steps; nonzero ends the rollout
// progress      [clusters] words of host memory: the steps done
ROLLOUT_KERNEL rollout(const Weight* weights, const float* constants, const float* inputs, const float* previous,
                       const float* windows_in, const float* ssm_in, float* windows_out, float* ssm_out,
                       float* outputs, int batch, int steps, int poll_steps, const int* cancel, int* progress) {
    const Memory memory;
    const int rank = cluster_rank();
    const int cluster = blockIdx.x / CLUSTER;
    const Slice slice{rank, cluster * SERIES, batch, weights + static_cast<size_t>(rank) * kBlockWeights};
    const StatePlace place;
    Exchanges exchanges(slice);
    exchanges.prepare();
#if STATE_IN_REGISTERS
    States states[LAYERS][kChannelRounds];
#pragma unroll
    for (int layer = 0; layer < LAYERS; ++layer)
#pragma unroll
        for (int round = 0; round < kChannelRounds; ++round)
            load_states(slice, place, layer, round, ssm_in, states[layer][round]);
#endif
    set_up(memory, slice, constants, windows_in);
    block_barrier();
    for (int item = threadIdx.x; FEEDBACK && item < SERIES * kOutputs; item += THREADS) {
        const int slot = item / kOutputs, output = rank * kOutputs + item % kOutputs;
        memory.fed[slot * kFedLength + item % kOutputs] =
            output < OUTPUTS ? previous[static_cast<size_t>(slice.series(slot)) * OUTPUTS + output] : 0.0f;
    }
    for (int item = threadIdx.x; item < SERIES * kKnown; item += THREADS)
        feed_known(memory, item, known_input(slice, inputs, steps, 0, item));
    // No block may store into another's shared memory before that block has set it up.
    cluster_barrier();
    embed(memory, slice, exchanges, memory.weights + kHeadWeights);

    for (int step = 0; step < steps; ++step) {
        if (step % poll_steps == 0 && must_stop(memory, slice, cancel)) return;
        // Asked for now, needed at the end of the step.
        float known[kKnownRounds];
        const int next = min(step + 1, steps - 1);
#pragma unroll
        for (int round = 0; round < kKnownRounds; ++round) {
            const int item = round * THREADS + threadIdx.x;
            known[round] = item < SERIES * kKnown ? known_input(slice, inputs, steps, next, item) : 0.0f;
        }
#pragma unroll 1
        for (int layer = 0; layer < LAYERS; ++layer) {
            const int offset = kStackWeights + layer * kLayerWeights;
            const bool resident = RESIDENT_LAYERS == LAYERS || (RESIDENT_LAYERS > 0 && layer < RESIDENT_LAYERS);
            if (resident)
                project_in(memory, slice, exchanges, layer, memory.weights + offset);
            else
                project_in(memory, slice, exchanges, layer, slice.weights + offset);
            if (CLUSTER > 1) block_barrier();
            exchanges.maps.wait();
#if STATE_IN_REGISTERS
            // Registers have no index at run time: a branch per layer, taken by all alike.
#pragma unroll
            for (int held = 0; held < LAYERS; ++held)
                if (held == layer)
#pragma unroll
                    for (int round = 0; round < kChannelRounds; ++round)
                        advance(memory, slice, place, layer, round, states[held][round]);
#else
            const float* from = step == 0 ? ssm_in : ssm_out;
#pragma unroll 2
            for (int round = 0; round < kChannelRounds; ++round) {
                States states;
                load_states(slice, place, layer, round, from, states);
                advance(memory, slice, place, layer, round, states);
                store_states(slice, place, layer, round, ssm_out, states);
            }
#endif
            block_barrier();
            if (resident)
                project_out(memory, slice, exchanges, memory.weights + offset + kInWeights);
            else
                project_out(memory, slice, exchanges, slice.weights + offset + kInWeights);
            close_layer(memory, slice, exchanges);
        }
        read_out(memory, slice, memory.weights, outputs, steps, step);
        if (step + 1 < steps) {
#pragma unroll
            for (int round = 0; round < kKnownRounds; ++round) {
                const int item = round * THREADS + threadIdx.x;
                if (item < SERIES * kKnown) feed_known(memory, item, known[round]);
            }
            embed(memory, slice, exchanges, memory.weights + kHeadWeights);
        }
        if ((step + 1) % poll_steps == 0 && rank == 0 && threadIdx.x == 0) write_host(progress + cluster, step + 1);
    }

#if STATE_IN_REGISTERS
#pragma unroll
    for (int layer = 0; layer < LAYERS; ++layer)
#pragma unroll
        for (int round = 0; round < kChannelRounds; ++round)
            store_states(slice, place, layer, round, ssm_out, states[layer][round]);
#endif
    for (int item = threadIdx.x; item < LAYERS * SERIES * kConvChannels; item += THREADS) {
        const int local = item % kConvChannels, slot = item / kConvChannels % SERIES;
        if (!slice.valid(slot)) continue;
        const size_t to = window_offset(slice, item / (kConvChannels * SERIES), slot, local);
        for (int tap = 0; tap < TAPS - 1; ++tap) windows_out[to + tap] = memory.windows[item * (TAPS - 1) + tap];
    }
    if (rank == 0 && threadIdx.x == 0) write_host(progress + cluster, steps);
}
