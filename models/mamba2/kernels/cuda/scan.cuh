// The chunked selective scan (state-space duality: Dao and Gu 2024, "Transformers are SSMs", section 6) of one layer.
//
//   add_chunks     what every chunk adds to the state by its end, and how much of the state it leaves
//   pass_states    the states at the starts of all chunks: a short recurrence, elementwise
//   read_chunks    the outputs of every chunk, from the state at its start and from its own steps
//
// The first and the last run all chunks of all heads and series at once. Chunks start at the first step of the call.
#pragma once

#include "layer_sizes.cuh"
#include "tiles.cuh"

// Given by plan.py: CHUNK and SCAN_THREADS, and what layer_sizes.cuh names.
// What the lanes of a fragment read should lie in as many banks: strides of 8 more than a multiple of 32.
DEVICE constexpr int spread(int length) { return (length + 23) / 32 * 32 + 8; }
constexpr int kChunkStride = spread(CHUNK);
constexpr int kHeadStride = spread(HEAD_CHANNELS);
constexpr int kStateStride = spread(STATES);
static_assert(CHUNK % 4 == 0 && HEAD_CHANNELS % 4 == 0 && STATES % 4 == 0, "tiles are four wide");
static_assert(SCAN_THREADS % kWarp == 0, "whole warps");

constexpr int kScanWarps = SCAN_THREADS / kWarp;

// What a warp has of a product of ROWS x COLUMNS in shared memory: 16 rows at a time.
template <int ROWS, int COLUMNS>
struct ScanTile {
    static constexpr int tiles = (ROWS + 15) / 16;
    WarpTile<1, (COLUMNS + 7) / 8> warp;
    int row0;

    DEVICE explicit ScanTile(int tile) : row0(16 * tile) { warp.clear(); }

    // Add sum over k < DEPTH of a[k][row] b[k][column]; k-th rows lie a stride apart. Only k < `until` and the first
    // `columns` can be more than 0.
    template <int DEPTH>
    DEVICE void add(Shared<float> a, int a_stride, Shared<float> b, int b_stride, int until, int columns) {
        for (int k0 = 0; k0 < until; k0 += 8)
            warp.template add<false>(
                (columns + 7) / 8,
                [&](int row, int k) {
                    return row0 + row < ROWS && k0 + k < DEPTH ? static_cast<float>(a[(k0 + k) * a_stride + row0 + row])
                                                              : 0.0f;
                },
                [&](int k, int column) {
                    return column < COLUMNS && k0 + k < DEPTH ? static_cast<float>(b[(k0 + k) * b_stride + column])
                                                             : 0.0f;
                });
    }

    // each(row, column, sum) within bounds.
    template <class Each>
    DEVICE void go(Each each) {
        warp.go([&](int row, int column, float& sum) {
            if (row0 + row < ROWS && column < COLUMNS) each(row0 + row, column, sum);
        });
    }
};

// Running sums of dt A kept as high + low floats: differences of them then lose no digits to a huge step far back.
struct Pair {
    float high, low;
};

DEVICE Pair add(Pair a, Pair b) {
    // Knuth's exact sum; contraction is off.
    const float sum = a.high + b.high;
    const float part = sum - a.high;
    const float error = (a.high - (sum - part)) + (b.high - part);
    const float low = a.low + b.low + error;
    const float high = sum + low;
    return {high, low - (high - sum)};
}

// log of the decay from the end of step `from` to the end of step `to`.
DEVICE float log_decay(Shared<float> high, Shared<float> low, int from, int to) {
    return (high[to] - high[from]) + (low[to] - low[from]);
}

// Which chunk of which head and series this block has.
struct ChunkPlace {
    int chunks, length;  // of the call
    int chunk, head, series;
    DEVICE ChunkPlace(int length) : chunks((length + CHUNK - 1) / CHUNK), length(length) {
        chunk = blockIdx.x % chunks;
        series = blockIdx.x / chunks;
        head = blockIdx.y;
    }
    DEVICE int steps() const { return min(CHUNK, length - chunk * CHUNK); }
    DEVICE size_t row(int step) const { return static_cast<size_t>(series) * length + chunk * CHUNK + step; }
    DEVICE size_t state() const {
        return ((static_cast<size_t>(series) * chunks + chunk) * kHeadsOfLayer + head) * HEAD_CHANNELS * STATES;
    }
    DEVICE int group() const { return head / (kHeadsOfLayer / GROUPS); }
};

// By the first warp: dt and the running sums of dt A, steps beyond the end with dt = 0; others may pass.
DEVICE void sum_log_decays(const ChunkPlace& place, const float* steps, float rate, Shared<float> dt,
                           Shared<float> high, Shared<float> low) {
    constexpr int per_lane = (CHUNK + kWarp - 1) / kWarp;
    if (threadIdx.x >= kWarp) return;
    const int lane = threadIdx.x;
    Pair sums[per_lane];
    Pair sum{0.0f, 0.0f};
#pragma unroll
    for (int i = 0; i < per_lane; ++i) {
        const int step = lane * per_lane + i;
        const float value = step < place.steps() ? steps[place.row(step) * kHeadsOfLayer + place.head] : 0.0f;
        if (step < CHUNK) dt[step] = value;
        sum = add(sum, {value * rate, 0.0f});
        sums[i] = sum;
    }
    Pair all = sum;  // of this lane and those before
#pragma unroll
    for (int offset = 1; offset < kWarp; offset *= 2) {
        const int from = max(lane - offset, 0);
        const Pair before{shuffle(all.high, from), shuffle(all.low, from)};
        if (lane >= offset) all = add(before, all);
    }
    const int previous = max(lane - 1, 0);
    const Pair before{shuffle(all.high, previous), shuffle(all.low, previous)};
#pragma unroll
    for (int i = 0; i < per_lane; ++i) {
        const int step = lane * per_lane + i;
        const Pair until = lane == 0 ? sums[i] : add(before, sums[i]);
        if (step < CHUNK) {
            high[step] = until.high;
            low[step] = until.low;
        }
    }
}

constexpr int kAddSharedFloats = CHUNK * (kStateStride + kHeadStride + 3);

// channels [series][length][kConvWidth], steps [series][length][heads], rates [heads]; added like the states.
DEVICE void add_chunk(const float* channels, const float* steps, const float* rates, float* added, float* kept,
                      int length) {
    const ChunkPlace place(length);
    const Shared<float> maps = shared_memory<float>(0);            // [CHUNK][STATES] B
    const Shared<float> inputs = maps + CHUNK * kStateStride;      // [CHUNK][HEAD_CHANNELS] x dt, decayed to the end
    const Shared<float> dt = inputs + CHUNK * kHeadStride;
    const Shared<float> high = dt + CHUNK;
    const Shared<float> low = high + CHUNK;
    sum_log_decays(place, steps, rates[place.head], dt, high, low);
    for (int item = threadIdx.x; item < CHUNK * STATES; item += SCAN_THREADS) {
        const int step = item / STATES, n = item % STATES;
        maps[step * kStateStride + n] =
            step < place.steps() ? channels[place.row(step) * kConvWidth + INNER + place.group() * STATES + n] : 0.0f;
    }
    block_barrier();
    for (int item = threadIdx.x; item < CHUNK * HEAD_CHANNELS; item += SCAN_THREADS) {
        const int step = item / HEAD_CHANNELS, p = item % HEAD_CHANNELS;
        float value = 0.0f;
        if (step < place.steps()) {
            const float x = channels[place.row(step) * kConvWidth + place.head * HEAD_CHANNELS + p];
            value = x * dt[step] * expf(log_decay(high, low, step, CHUNK - 1));
        }
        inputs[step * kHeadStride + p] = value;
    }
    block_barrier();
    const size_t state = place.state();
    using Tile = ScanTile<HEAD_CHANNELS, STATES>;
    for (int at = threadIdx.x / kWarp; at < Tile::tiles; at += kScanWarps) {
        Tile tile(at);
        tile.add<CHUNK>(inputs, kHeadStride, maps, kStateStride, CHUNK, STATES);
        tile.go([&](int p, int n, float sum) { added[state + p * STATES + n] = sum; });
    }
    if (threadIdx.x == 0)
        kept[(static_cast<size_t>(place.series) * place.chunks + place.chunk) * kHeadsOfLayer + place.head] =
            expf(high[CHUNK - 1] + low[CHUNK - 1]);
}

// states: what each chunk adds, in; the state at its start, out. One thread per state.
DEVICE void pass_state(float* states, const float* kept, const float* first, float* last, int chunks, int batch) {
    constexpr int per_head = HEAD_CHANNELS * STATES;
    constexpr int per_series = kHeadsOfLayer * per_head;
    const size_t index = static_cast<size_t>(blockIdx.x) * SCAN_THREADS + threadIdx.x;
    if (index >= static_cast<size_t>(batch) * per_series) return;
    const size_t series = index / per_series;
    const int inside = static_cast<int>(index % per_series), head = inside / per_head;
    float state = first[index];
    size_t chunk = series * chunks;
    float added = states[chunk * per_series + inside], decay = kept[chunk * kHeadsOfLayer + head];
    for (int left = chunks; left > 0; --left, ++chunk) {
        // The next chunk's numbers come while this one's are used.
        const size_t next = left > 1 ? chunk + 1 : chunk;
        const float added_next = states[next * per_series + inside], decay_next = kept[next * kHeadsOfLayer + head];
        states[chunk * per_series + inside] = state;
        state = fmaf(state, decay, added);
        added = added_next;
        decay = decay_next;
    }
    last[index] = state;
}

constexpr int kReadSharedFloats =
    2 * STATES * kChunkStride + STATES * kHeadStride + CHUNK * (kChunkStride + kHeadStride + 3);

// y[step][p] = sum over s <= step of decay(s, step) (C_step B_s) dt_s x_s[p] + decay(start, step) C_step state[p] + D x[p]
DEVICE void read_chunk(const float* channels, const float* steps, const float* rates, const float* skips,
                       const float* states, float* outputs, int length) {
    const ChunkPlace place(length);
    const Shared<float> b = shared_memory<float>(0);              // [STATES][CHUNK]
    const Shared<float> c = b + STATES * kChunkStride;            // [STATES][CHUNK]
    const Shared<float> start = c + STATES * kChunkStride;        // [STATES][HEAD_CHANNELS]
    const Shared<float> scores = start + STATES * kHeadStride;    // [CHUNK from][CHUNK to]
    const Shared<float> inputs = scores + CHUNK * kChunkStride;   // [CHUNK][HEAD_CHANNELS] x dt
    const Shared<float> dt = inputs + CHUNK * kHeadStride;
    const Shared<float> high = dt + CHUNK;
    const Shared<float> low = high + CHUNK;
    const size_t state = place.state();
    sum_log_decays(place, steps, rates[place.head], dt, high, low);
    for (int item = threadIdx.x; item < CHUNK * STATES; item += SCAN_THREADS) {
        const int step = item / STATES, n = item % STATES;
        const bool inside = step < place.steps();
        const size_t from = place.row(inside ? step : 0) * kConvWidth + INNER + place.group() * STATES + n;
        b[n * kChunkStride + step] = inside ? channels[from] : 0.0f;
        c[n * kChunkStride + step] = inside ? channels[from + GROUPS * STATES] : 0.0f;
    }
    for (int item = threadIdx.x; item < HEAD_CHANNELS * STATES; item += SCAN_THREADS)
        start[item % STATES * kHeadStride + item / STATES] = states[state + item];
    block_barrier();
    for (int item = threadIdx.x; item < CHUNK * HEAD_CHANNELS; item += SCAN_THREADS) {
        const int step = item / HEAD_CHANNELS, p = item % HEAD_CHANNELS;
        inputs[step * kHeadStride + p] =
            step < place.steps() ? channels[place.row(step) * kConvWidth + place.head * HEAD_CHANNELS + p] * dt[step]
                                 : 0.0f;
    }
    // Rows are the later steps: what is wholly later than them is not multiplied.
    using Scores = ScanTile<CHUNK, CHUNK>;
    for (int at = threadIdx.x / kWarp; at < Scores::tiles; at += kScanWarps) {
        Scores tile(at);
        tile.add<STATES>(c, kChunkStride, b, kChunkStride, STATES, min(tile.row0 + 16, CHUNK));
        tile.go([&](int to, int from, float sum) {
            scores[from * kChunkStride + to] = from <= to ? sum * expf(log_decay(high, low, from, to)) : 0.0f;
        });
    }
    block_barrier();
    using Outputs = ScanTile<CHUNK, HEAD_CHANNELS>;
    for (int at = threadIdx.x / kWarp; at < Outputs::tiles; at += kScanWarps) {
        Outputs tile(at);
        tile.add<STATES>(c, kChunkStride, start, kHeadStride, STATES, HEAD_CHANNELS);
        tile.go([&](int to, int, float& sum) { sum *= expf(high[to] + low[to]); });
        tile.add<CHUNK>(scores, kChunkStride, inputs, kHeadStride, min(tile.row0 + 16, CHUNK), HEAD_CHANNELS);
        tile.go([&](int to, int p, float sum) {
            if (to >= place.steps()) return;
            const int channel = place.head * HEAD_CHANNELS + p;
            const float x = channels[place.row(to) * kConvWidth + channel];
            outputs[place.row(to) * INNER + channel] = fmaf(skips[place.head], x, sum);
        });
    }
}
