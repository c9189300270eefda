// The stages of a step of a rollout, as the blocks of a cluster share them; see rollout.cu.
#pragma once

#include "rollout_layout.cuh"

using Memory = RolloutMemory;

struct Slice {
    int rank;                    // of the block in its cluster
    int first;                   // series of slot 0
    int batch;                   // series of the launch
    const Weight* weights;       // of this block, all of them
    DEVICE int own_rows() const { return first_row(rank + 1) - first_row(rank); }  // of the stream
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
    return local < kMaps ? INNER + rank * kMaps + local : rank * kChannels + local - kMaps;
}

DEVICE size_t window_offset(const Slice& slice, int layer, int slot, int local) {
    const size_t row = static_cast<size_t>(layer) * slice.batch + slice.series(slot);
    return (row * kAllConvChannels + conv_channel(slice.rank, local)) * (TAPS - 1);
}

// To every `copies`-th block from `copy` on: the copies of a value reach all blocks together.
template <int copies>
DEVICE void send_to_all(Shared<float> words, int index, float value, const Exchange& exchange, int copy) {
#pragma unroll
    for (int first = 0; first < CLUSTER; first += copies)
        if (first + copy < CLUSTER) exchange.send(words, index, first + copy, value);
}

// What the exchanges carry.
struct Exchanges {
    Exchange maps{{0}, 4 * SERIES * kAllMaps};
    Exchange stream{{8}, 4 * SERIES * WIDTH};
    Exchange partials, embedded;
    int turn = 0;  // of the two buffers of partials

    DEVICE explicit Exchanges(const Slice& slice)
        : partials{{16}, 4 * SERIES * kParts * (slice.own_rows() + 1)},
          embedded{{24}, 4 * SERIES * CLUSTER * slice.own_rows()} {}
    DEVICE void prepare() const {
        maps.prepare();
        stream.prepare();
        partials.prepare();
        embedded.prepare();
    }
};

// in_proj of the normed stream, and what follows of each row as far as this block goes on with it alone: B, C and x are
// convolved and activated, B and C sent to all blocks; dt becomes a step size and a decay; z the gate.
template <class Weights>
DEVICE void project_in(const Memory& memory, const Slice& slice, const Exchanges& exchanges, int layer, Weights matrix) {
    const Shared<float> constants = memory.constants + kLayerConstants * layer + kStackConstants;
    const auto go_on = [&](int row, int slot, int copy, float sum, float squares) {
        const float newest = sum * rsqrtf(squares / WIDTH + NORM_EPS);
        const Shared<float> window = memory.windows + ((layer * SERIES + slot) * kConvChannels + row) * (TAPS - 1);
        const bool convolved = row < kConvChannels;
        float seen[TAPS];
        seen[TAPS - 1] = newest;
#pragma unroll
        for (int tap = 0; tap < TAPS - 1; ++tap) seen[tap] = convolved ? static_cast<float>(window[tap]) : 0.0f;
        // All copies have read the window.
        warp_barrier();
        if (convolved) {
            float mixed = constants[kConvBias + row];
#pragma unroll
            for (int tap = 0; tap < TAPS; ++tap) {
                if (copy == 0 && tap > 0) window[tap - 1] = seen[tap];
                mixed = fmaf(constants[row * TAPS + tap], seen[tap], mixed);
            }
            const float activated = silu(mixed);
            if (row < kMaps)
                send_to_all<InProduct::copies>(memory.maps, slot * kAllMaps + slice.rank * kMaps + row, activated,
                                               exchanges.maps, copy);
            else if (copy == 0)
                memory.channels[slot * kChannels + row - kMaps] = activated;
        } else if (copy == 0 && row < kConvChannels + kHeads) {
            const int head = row - kConvChannels;
            const float dt = step_size(newest, constants[kStepBias + head], STEP_LOW, STEP_HIGH);
            memory.steps[slot * kHeads + head] = dt;
            memory.decays[slot * kHeads + head] = expf(dt * constants[kRate + head]);
        } else if (copy == 0 && row < kInRows) {
            memory.gates[slot * kChannels + row - kConvChannels - kHeads] = silu(newest);
        }
    };
    InProduct::go<true>(matrix, memory.stream, kStreamLength, go_on);
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
    scatter_sums<SERIES, kThreadsPerChannel / 2>(sums, lane);
    const int first = first_kept<SERIES, kThreadsPerChannel / 2>(lane);
    if (place.owner(round) && Place::copy(lane) == 0) {
#pragma unroll
        for (int kept = 0; kept < Place::kept; ++kept) {
            const int slot = first + kept;
            const float y = fmaf(constants[kSkip + head], memory.channels[slot * kChannels + channel], sums[kept]);
            const int part = channel / kPartChannels, column = channel % kPartChannels;
            memory.gated[(slot * kLocalParts + part) * kPartLength + column] =
                y * memory.gates[slot * kChannels + channel];
        }
    }
}

// This block's columns of out_proj, one part per norm group, each row to the block that adds it up; and the squares that
// the norm of the group needs, to all.
template <class Weights>
DEVICE void project_out(const Memory& memory, const Slice& slice, const Exchanges& exchanges, Weights matrix) {
#pragma unroll
    for (int part = 0; part < kLocalParts; ++part) {
        const int place = exchanges.turn * SERIES * kParts + slice.rank * kLocalParts + part;
        const auto send = [&](int row, int slot, int copy, float sum, float squares) {
            const int to = (place + slot * kParts) * (kOwnRows + 1), owner = row_owner(row);
            if (copy == 0 && row < WIDTH) exchanges.partials.send(memory.partials, to + row - first_row(owner), owner, sum);
            if (row == 0) send_to_all<OutProduct::copies>(memory.partials, to + kOwnRows, squares, exchanges.partials, copy);
        };
        OutProduct::go<true>(matrix + part * OutProduct::weights, memory.gated + part * kPartLength,
                             kLocalParts * kPartLength, send);
    }
}

// A row of the stream that this block adds up goes to all blocks.
template <class Value>
DEVICE void share_stream(const Memory& memory, const Slice& slice, const Exchanges& exchanges, Value value) {
    for (int item = threadIdx.x; item < SERIES * kOwnRows; item += THREADS) {
        const int slot = item / kOwnRows, row = item % kOwnRows;
        if (row >= slice.own_rows()) continue;
        const float x = value(slot, row);
        memory.residual[item] = x;
        send_to_all<1>(memory.stream, slot * kStreamLength + first_row(slice.rank) + row, x, exchanges.stream, 0);
    }
}

// stream += out_proj, from the parts of all blocks, in the order of the parts.
DEVICE void close_layer(const Memory& memory, const Slice& slice, Exchanges& exchanges) {
    exchanges.partials.wait();
    const Shared<float> partials = memory.partials + exchanges.turn * kPartialFloats;
    share_stream(memory, slice, exchanges, [&](int slot, int row) {
        float x = memory.residual[slot * kOwnRows + row];
#pragma unroll
        for (int group = 0; group < GROUPS; ++group) {
            float sum = 0.0f, squares = 0.0f;
#pragma unroll
            for (int part = 0; part < kParts / GROUPS; ++part) {
                const int from = (slot * kParts + group * (kParts / GROUPS) + part) * (kOwnRows + 1);
                sum += partials[from + row];
                squares += partials[from + kOwnRows];
            }
            x = fmaf(sum, rsqrtf(squares / GROUP_CHANNELS + NORM_EPS), x);
        }
        return x;
    });
    exchanges.turn ^= 1;
    exchanges.stream.wait();
}

// stream = embedding of the next step, from every block's outputs and known inputs in `memory.fed`.
template <class Weights>
DEVICE void embed(const Memory& memory, const Slice& slice, Exchanges& exchanges, Weights matrix) {
    block_barrier();
    FedProduct::go<false>(matrix, memory.fed, kFedLength, [&](int row, int slot, int copy, float sum, float) {
        if (copy != 0 || row >= WIDTH) return;
        const int owner = row_owner(row);
        const int to = (slot * CLUSTER + slice.rank) * kOwnRows + row - first_row(owner);
        exchanges.embedded.send(memory.embedded, to, owner, sum);
    });
    exchanges.embedded.wait();
    share_stream(memory, slice, exchanges, [&](int slot, int row) {
        float x = memory.constants[kInputBias + first_row(slice.rank) + row];
#pragma unroll
        for (int rank = 0; rank < CLUSTER; ++rank) x += memory.embedded[(slot * CLUSTER + rank) * kOwnRows + row];
        return x;
    });
    exchanges.stream.wait();
}

// This block's outputs of the step, into global memory and into what is fed back.
template <class Weights>
DEVICE void read_out(const Memory& memory, const Slice& slice, Weights matrix, float* outputs, int steps, int step) {
    HeadProduct::go<true>(matrix, memory.stream, kStreamLength, [&](int row, int slot, int copy, float sum, float squares) {
        if (copy != 0 || row >= kOutputs) return;
        const int output = slice.rank * kOutputs + row;
        const float y = fmaf(sum, rsqrtf(squares / WIDTH + NORM_EPS), memory.constants[kHeadBias + row]);
        if (FEEDBACK) memory.fed[slot * kFedLength + row] = y;
        if (output < OUTPUTS && slice.valid(slot))
            outputs[(static_cast<size_t>(slice.series(slot)) * steps + step) * OUTPUTS + output] = y;
    });
}
