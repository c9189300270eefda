// A whole rollout in one launch: a cluster of blocks steps a few series through all layers, thousands of times.
//
// Every block owns a slice of the inner channels of every layer: their rows of in_proj, their convolution, their part of
// the state and their columns of out_proj. Two exchanges through distributed shared memory join the slices in a layer: B
// and C after the convolution, and the partial sums of out_proj; a third per step joins the embedding of the next step.
// Weights of the first RESIDENT_LAYERS layers stay in shared memory, the others come from L2. The scale of the gated norm
// is applied after out_proj, and norm weights are folded into the matrices, so that no norm costs an exchange.
//
// Series of one launch never meet; the bits of one do not depend on SERIES or on its neighbours.
#include "matvec.cuh"
#include "rollout_layout.cuh"

namespace {

using Memory = RolloutMemory;

struct Slice {
    int rank;                    // of the block in its cluster
    int first;                   // series of slot 0
    int batch;                   // series of the launch
    const Weight* weights;       // of this block, all of them
    DEVICE int series(int slot) const { return min(first + slot, batch - 1); }
    DEVICE bool valid(int slot) const { return first + slot < batch; }
};

// Where a thread finds its part of the state of a layer: round by round a channel, and some states of it.
struct StatePlace {
    int slot = threadIdx.x / kThreadsPerChannel;
    int first_state = threadIdx.x % kThreadsPerChannel * kStatesPerThread;
    DEVICE int channel(int round) const { return min(round * kChannelsAtOnce + slot, kChannels - 1); }
    DEVICE bool owner(int round) const { return round * kChannelsAtOnce + slot < kChannels; }
};

// A thread's states of one round of channels.
using States = float[SERIES][kStatesPerThread];

DEVICE size_t state_offset(const Slice& slice, const StatePlace& place, int layer, int round, int slot) {
    const size_t row = (static_cast<size_t>(layer) * slice.batch + slice.series(slot)) * INNER;
    return (row + slice.rank * kChannels + place.channel(round)) * STATES + place.first_state;
}

DEVICE void load_states(const Slice& slice, const StatePlace& place, int layer, int round, const float* from,
                        States& states) {
#pragma unroll
    for (int slot = 0; slot < SERIES; ++slot)
#pragma unroll
        for (int n = 0; n < kStatesPerThread; n += 4) {
            const float4 four = load4(from + state_offset(slice, place, layer, round, slot) + n, 0);
            states[slot][n] = four.x;
            states[slot][n + 1] = four.y;
            states[slot][n + 2] = four.z;
            states[slot][n + 3] = four.w;
        }
}

DEVICE void store_states(const Slice& slice, const StatePlace& place, int layer, int round, float* to,
                         const States& states) {
#pragma unroll
    for (int slot = 0; slot < SERIES; ++slot)
        if (slice.valid(slot) && place.owner(round))
#pragma unroll
            for (int n = 0; n < kStatesPerThread; n += 4)
                store4(to + state_offset(slice, place, layer, round, slot) + n,
                       {states[slot][n], states[slot][n + 1], states[slot][n + 2], states[slot][n + 3]});
}

// The channel of the convolution, among all blocks', that is this block's `local`.
DEVICE int conv_channel(int rank, int local) {
    return local < kChannels ? rank * kChannels + local : INNER + rank * kMaps + local - kChannels;
}

DEVICE size_t window_offset(const Slice& slice, int layer, int slot, int local) {
    const size_t row = static_cast<size_t>(layer) * slice.batch + slice.series(slot);
    return (row * kAllConvChannels + conv_channel(slice.rank, local)) * (TAPS - 1);
}

DEVICE void send_to_all(Shared<float> words, int index, float value) {
#pragma unroll
    for (int rank = 0; rank < CLUSTER; ++rank) store_remote(words, index, rank, value);
}

// One slot's vector and the inverse of its root mean square, by one warp; value(d) gives element d.
template <class Value>
DEVICE void set_stream(const Memory& memory, int slot, Value value) {
    const int lane = threadIdx.x % kWarp;
    float squares = 0.0f;
#pragma unroll
    for (int d = lane; d < WIDTH; d += kWarp) {
        const float x = value(d);
        memory.stream[slot * kStreamLength + d] = x;
        squares = fmaf(x, x, squares);
    }
    squares = sum_over_lanes<kWarp>(squares);
    if (lane == 0) memory.inverse_rms[slot] = rsqrtf(squares / WIDTH + NORM_EPS);
}

// Rows z, x, B, C and dt of this block.
template <class Weights>
DEVICE void project_in(const Memory& memory, Weights matrix) {
    multiply_rows<kInRows, WIDTH, SERIES, kWarps>(matrix, memory.stream, kStreamLength, [&](int row, int slot, float sum) {
        memory.projected[slot * kInRows + row] = sum * memory.inverse_rms[slot];
    });
}

// Convolve and activate this block's x, B and C; send B and C to all blocks; step sizes and decays of its heads.
DEVICE void convolve(const Memory& memory, const Slice& slice, int layer) {
    const Shared<float> constants = memory.constants + kLayerConstants * layer + kStackConstants;
    for (int item = threadIdx.x; item < SERIES * kConvChannels; item += THREADS) {
        const int slot = item / kConvChannels, local = item % kConvChannels;
        const Shared<float> window =
            memory.windows + ((layer * SERIES + slot) * kConvChannels + local) * (TAPS - 1);
        const float newest = memory.projected[slot * kInRows + kChannels + local];
        float sum = constants[kConvBias + local];
#pragma unroll
        for (int tap = 0; tap < TAPS; ++tap) {
            const float value = tap < TAPS - 1 ? static_cast<float>(window[tap]) : newest;
            sum = fmaf(constants[local * TAPS + tap], value, sum);
            if (tap > 0) window[tap - 1] = value;
        }
        const float activated = silu(sum);
        if (local < kChannels)
            memory.channels[slot * kChannels + local] = activated;
        else
            send_to_all(memory.maps, slot * kAllMaps + slice.rank * kMaps + local - kChannels, activated);
    }
    // From the last thread down: the first ones have a channel more.
    for (int item = THREADS - 1 - threadIdx.x; item < SERIES * kHeads; item += THREADS) {
        const int slot = item / kHeads, head = item % kHeads;
        const float raw = memory.projected[slot * kInRows + 2 * kChannels + kMaps + head];
        const float dt = step_size(raw, constants[kStepBias + head], STEP_LOW, STEP_HIGH);
        memory.steps[item] = dt;
        memory.decays[item] = expf(dt * constants[kRate + head]);
    }
}

// Advance the states of one round of channels by one step; gated[c] = (C s + D x) silu(z).
DEVICE void advance(const Memory& memory, const Slice& slice, const StatePlace& place, int layer, int round,
                    States& states) {
    const Shared<float> constants = memory.constants + kLayerConstants * layer + kStackConstants;
    const int lane = threadIdx.x % kThreadsPerChannel;
    const int channel = place.channel(round);
    const int group = (slice.rank * kChannels + channel) / (INNER / GROUPS);
    const int head = channel / kHeadChannels;
    float sums[SERIES];
#pragma unroll
    for (int slot = 0; slot < SERIES; ++slot) {
        const int maps = slot * kAllMaps + group * STATES + place.first_state;
        const float decay = memory.decays[slot * kHeads + head];
        const float input = memory.steps[slot * kHeads + head] * memory.channels[slot * kChannels + channel];
        float(&s)[kStatesPerThread] = states[slot];
        float sum = 0.0f;
#pragma unroll
        for (int n = 0; n < kStatesPerThread; n += 4) {
            const float4 b = load4(memory.maps, maps + n);
            const float4 c = load4(memory.maps, maps + GROUPS * STATES + n);
            s[n] = fmaf(s[n], decay, input * b.x);
            s[n + 1] = fmaf(s[n + 1], decay, input * b.y);
            s[n + 2] = fmaf(s[n + 2], decay, input * b.z);
            s[n + 3] = fmaf(s[n + 3], decay, input * b.w);
            sum = fmaf(s[n], c.x, sum);
            sum = fmaf(s[n + 1], c.y, sum);
            sum = fmaf(s[n + 2], c.z, sum);
            sum = fmaf(s[n + 3], c.w, sum);
        }
        sums[slot] = sum;
    }
    using Place = Scattered<SERIES, kThreadsPerChannel>;
    const int first = scatter_sums<SERIES, kThreadsPerChannel / 2>(sums, lane);
    if (place.owner(round) && Place::speaks(lane)) {
#pragma unroll
        for (int kept = 0; kept < Place::kept; ++kept) {
            const int slot = first + kept;
            const float x = memory.channels[slot * kChannels + channel];
            const float y = fmaf(constants[kSkip + head], x, sums[kept]);
            const float z = memory.projected[slot * kInRows + channel];
            const int part = channel / kPartChannels, column = channel % kPartChannels;
            memory.gated[(slot * kLocalParts + part) * kPartLength + column] = y * silu(z);
        }
    }
}

// This block's columns of out_proj, one part per norm group, and the squares that the norm of the group needs.
template <class Weights>
DEVICE void project_out(const Memory& memory, const Slice& slice, Weights matrix) {
#pragma unroll
    for (int part = 0; part < kLocalParts; ++part) {
        const int place = slice.rank * kLocalParts + part;
        const Shared<float> gated = memory.gated + part * kPartLength;
        multiply_rows<WIDTH, kPartChannels, SERIES, kWarps>(
            matrix + part * WIDTH * kPartLength, gated, kLocalParts * kPartLength, [&](int row, int slot, float sum) {
                send_to_all(memory.partials, (slot * kParts + place) * WIDTH + row, sum);
            });
        for (int slot = kWarps - 1 - threadIdx.x / kWarp; slot < SERIES; slot += kWarps) {
            const int lane = threadIdx.x % kWarp;
            float squares = 0.0f;
            for (int column = lane; column < kPartChannels; column += kWarp) {
                const float value = gated[slot * kLocalParts * kPartLength + column];
                squares = fmaf(value, value, squares);
            }
            squares = sum_over_lanes<kWarp>(squares);
            if (lane == 0) send_to_all(memory.squares, slot * kParts + place, squares);
        }
    }
}

// stream += out_proj, from the parts of all blocks, in the order of the parts.
DEVICE void close_layer(const Memory& memory) {
    for (int slot = threadIdx.x / kWarp; slot < SERIES; slot += kWarps) {
        float scales[GROUPS];
#pragma unroll
        for (int group = 0; group < GROUPS; ++group) {
            float squares = 0.0f;
#pragma unroll
            for (int part = 0; part < kParts / GROUPS; ++part)
                squares += memory.squares[slot * kParts + group * (kParts / GROUPS) + part];
            scales[group] = rsqrtf(squares / GROUP_CHANNELS + NORM_EPS);
        }
        set_stream(memory, slot, [&](int d) {
            float x = memory.stream[slot * kStreamLength + d];
#pragma unroll
            for (int group = 0; group < GROUPS; ++group) {
                float sum = 0.0f;
#pragma unroll
                for (int part = 0; part < kParts / GROUPS; ++part)
                    sum += memory.partials[(slot * kParts + group * (kParts / GROUPS) + part) * WIDTH + d];
                x = fmaf(sum, scales[group], x);
            }
            return x;
        });
    }
}

// stream = embedding of the next step, from every block's outputs and known inputs in `memory.fed`.
template <class Weights>
DEVICE void embed(const Memory& memory, const Slice& slice, Weights matrix) {
    block_barrier();
    multiply_rows<WIDTH, kFed, SERIES, kWarps>(matrix, memory.fed, kFedLength, [&](int row, int slot, float sum) {
        send_to_all(memory.embedded, (slot * CLUSTER + slice.rank) * WIDTH + row, sum);
    });
    cluster_barrier();
    for (int slot = threadIdx.x / kWarp; slot < SERIES; slot += kWarps)
        set_stream(memory, slot, [&](int d) {
            float x = memory.constants[kInputBias + d];
#pragma unroll
            for (int rank = 0; rank < CLUSTER; ++rank) x += memory.embedded[(slot * CLUSTER + rank) * WIDTH + d];
            return x;
        });
    block_barrier();
}

// This block's outputs of the step, into global memory and into what is fed back.
template <class Weights>
DEVICE void read_out(const Memory& memory, const Slice& slice, Weights matrix, float* outputs, int steps, int step) {
    multiply_rows<kOutputs, WIDTH, SERIES, kWarps>(matrix, memory.stream, kStreamLength, [&](int row, int slot, float sum) {
        const int output = slice.rank * kOutputs + row;
        const float y = fmaf(sum, memory.inverse_rms[slot], memory.constants[kHeadBias + row]);
        if (FEEDBACK) memory.fed[slot * kFedLength + row] = y;
        if (output < OUTPUTS && slice.valid(slot))
            outputs[(static_cast<size_t>(slice.series(slot)) * steps + step) * OUTPUTS + output] = y;
    });
}

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
    if (slice.rank == 0 && threadIdx.x == 0) send_to_all(memory.stop, 0, read_host(cancel) != 0 ? 1.0f : 0.0f);
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
    embed(memory, slice, memory.weights + kHeadWeights);

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
                project_in(memory, memory.weights + offset);
            else
                project_in(memory, slice.weights + offset);
            block_barrier();
            convolve(memory, slice, layer);
            cluster_barrier();
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
                project_out(memory, slice, memory.weights + offset + kInWeights);
            else
                project_out(memory, slice, slice.weights + offset + kInWeights);
            cluster_barrier();
            close_layer(memory);
            block_barrier();
        }
        read_out(memory, slice, memory.weights, outputs, steps, step);
        if (step + 1 < steps) {
#pragma unroll
            for (int round = 0; round < kKnownRounds; ++round) {
                const int item = round * THREADS + threadIdx.x;
                if (item < SERIES * kKnown) feed_known(memory, item, known[round]);
            }
            embed(memory, slice, memory.weights + kHeadWeights);
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
