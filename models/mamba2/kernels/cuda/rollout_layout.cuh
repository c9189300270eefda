// Sizes of a rollout, all known when it is compiled, and where its things lie in shared memory.
//
// Given by plan.py: WIDTH, INNER, STATES, HEAD_CHANNELS, GROUPS, GROUP_CHANNELS, TAPS, LAYERS, INPUTS, OUTPUTS, FEEDBACK,
// CLUSTER, SERIES, THREADS, RESIDENT_LAYERS, STATE_IN_REGISTERS, WEIGHT_BF16, NORM_EPS, STEP_LOW, STEP_HIGH, THREADS_PER_CHANNEL, and
// SHARED_BYTES and BLOCK_WEIGHTS to hold both sides together.
#pragma once

#include "matvec.cuh"

#if CLUSTER > 1
#define ROLLOUT_KERNEL CLUSTER_KERNEL(THREADS, CLUSTER)
#else
#define ROLLOUT_KERNEL KERNEL(THREADS)
#endif

DEVICE constexpr int at_least_one(int a) { return a > 1 ? a : 1; }
DEVICE constexpr int larger(int a, int b) { return a > b ? a : b; }

// A block's share of a layer.
constexpr int kChannels = INNER / CLUSTER;
constexpr int kAllMaps = 2 * GROUPS * STATES;  // B, then C
constexpr int kAllConvChannels = INNER + kAllMaps;
constexpr int kMaps = kAllMaps / CLUSTER;
constexpr int kConvChannels = kMaps + kChannels;
constexpr int kHeads = at_least_one(kChannels / HEAD_CHANNELS);
constexpr int kHeadChannels = kChannels / kHeads;
constexpr int kInRows = kConvChannels + kHeads + kChannels;  // B or C, x, dt, z: what others wait for comes first

// Parts of the channels that each lie in one block and one group of the gated norm.
constexpr int kLocalParts = at_least_one(GROUPS / CLUSTER);
constexpr int kParts = CLUSTER * kLocalParts;
constexpr int kPartChannels = kChannels / kLocalParts;

// Rows of the residual stream that a block adds up for all: as even as can be, since every block must wait for some.
constexpr int kFewestRows = WIDTH / CLUSTER, kFullerBlocks = WIDTH % CLUSTER;
constexpr int kOwnRows = kFewestRows + (kFullerBlocks > 0 ? 1 : 0);
static_assert(kFewestRows > 0, "every block has a row of the stream");
DEVICE constexpr int first_row(int rank) { return rank * kFewestRows + (rank < kFullerBlocks ? rank : kFullerBlocks); }
DEVICE constexpr int row_owner(int row) {
    constexpr int split = kFullerBlocks * kOwnRows;
    return row < split ? row / kOwnRows : kFullerBlocks + (row - split) / kFewestRows;
}

// A block's share of the outputs and of the known inputs, and what it puts into the next embedding.
constexpr int kOutputs = ceil_div(OUTPUTS, CLUSTER);
constexpr int kKnown = at_least_one(ceil_div(INPUTS, CLUSTER));
constexpr int kKnownRounds = ceil_div(SERIES * kKnown, THREADS);
constexpr int kFed = (FEEDBACK ? kOutputs : 0) + kKnown;

// A thread's share of the state.
constexpr int kThreadsPerChannel = THREADS_PER_CHANNEL;
constexpr int kStatesPerThread = STATES / kThreadsPerChannel;
constexpr int kChannelsAtOnce = THREADS / kThreadsPerChannel;
constexpr int kChannelRounds = ceil_div(kChannels, kChannelsAtOnce);

static_assert(THREADS % kWarp == 0 && kThreadsPerChannel <= kWarp && STATES % (4 * kThreadsPerChannel) == 0, "threads");
static_assert(INNER % CLUSTER == 0 && kAllMaps % CLUSTER == 0, "a cluster shares channels and maps evenly");
static_assert(kChannels % HEAD_CHANNELS == 0 || HEAD_CHANNELS % kChannels == 0, "a block's channels start at a head");
static_assert(GROUPS % CLUSTER == 0 || CLUSTER % GROUPS == 0, "a part lies in one group");

using InProduct = LayerProduct<kInRows, WIDTH, SERIES>;
using OutProduct = LayerProduct<WIDTH, kPartChannels, SERIES>;
using HeadProduct = RowProduct<kOutputs, WIDTH, SERIES>;
using FedProduct = RowProduct<WIDTH, kFed, SERIES>;

constexpr int kStreamLength = larger(InProduct::length, HeadProduct::length);
constexpr int kPartLength = OutProduct::length;
constexpr int kFedLength = FedProduct::length;

// Weights of a block: head, feedback with known inputs, then the layers.
constexpr int kHeadWeights = HeadProduct::weights;
constexpr int kStackWeights = kHeadWeights + FedProduct::weights;
constexpr int kInWeights = InProduct::weights;
constexpr int kLayerWeights = kInWeights + kLocalParts * OutProduct::weights;
constexpr int kResidentWeights = kStackWeights + RESIDENT_LAYERS * kLayerWeights;
constexpr int kBlockWeights = kStackWeights + LAYERS * kLayerWeights;
static_assert(kBlockWeights == BLOCK_WEIGHTS, "packing.py and the kernel lay weights out alike");

// Constants of a block, always float: of the stack, then of each layer.
constexpr int kInputBias = 0;
constexpr int kHeadBias = WIDTH;
constexpr int kStackConstants = kHeadBias + kOutputs;
constexpr int kConvBias = kConvChannels * TAPS;  // offsets in a layer; the taps come first
constexpr int kStepBias = kConvBias + kConvChannels;
constexpr int kRate = kStepBias + kHeads;
constexpr int kSkip = kRate + kHeads;
constexpr int kLayerConstants = kSkip + kHeads;
constexpr int kBlockConstants = kStackConstants + LAYERS * kLayerConstants;

// Shared memory, in floats; the counters of arrivals first, then what is loaded four wide.
constexpr int kArrivalFloats = 8;
constexpr int kStreamAt = kArrivalFloats;
constexpr int kGatedAt = kStreamAt + SERIES * kStreamLength;
constexpr int kFedAt = kGatedAt + SERIES * kLocalParts * kPartLength;
constexpr int kMapsAt = kFedAt + SERIES * kFedLength;
constexpr int kZeroedFloats = kMapsAt - kStreamAt;
constexpr int kWeightsAt = kMapsAt + SERIES * kAllMaps;
constexpr int kWeightFloats = ceil_div(kResidentWeights * static_cast<int>(sizeof(Weight)), 4);
constexpr int kGatesAt = kWeightsAt + kWeightFloats;
constexpr int kChannelsAt = kGatesAt + SERIES * kChannels;
constexpr int kStepsAt = kChannelsAt + SERIES * kChannels;
constexpr int kDecaysAt = kStepsAt + SERIES * kHeads;
constexpr int kPartialFloats = SERIES * kParts * (kOwnRows + 1);  // with the squares behind
constexpr int kPartialsAt = kDecaysAt + SERIES * kHeads;
constexpr int kEmbeddedAt = kPartialsAt + 2 * kPartialFloats;
constexpr int kResidualAt = kEmbeddedAt + SERIES * CLUSTER * kOwnRows;
constexpr int kWindowsAt = kResidualAt + SERIES * kOwnRows;
constexpr int kConstantsAt = kWindowsAt + LAYERS * SERIES * kConvChannels * (TAPS - 1);
constexpr int kStopAt = kConstantsAt + kBlockConstants;
constexpr int kSharedFloats = kStopAt + 1;
static_assert(4 * kSharedFloats == SHARED_BYTES, "plan.py and the kernel lay shared memory out alike");

struct RolloutMemory {
    DEVICE static Shared<float> floats(int at) { return shared_memory<float>(4 * at); }

    Shared<float> stream = floats(kStreamAt);                // [SERIES][kStreamLength], of all blocks
    Shared<float> gated = floats(kGatedAt);                  // [SERIES][kLocalParts][kPartLength]
    Shared<float> fed = floats(kFedAt);                      // [SERIES][kFedLength] outputs fed back, known inputs
    Shared<float> maps = floats(kMapsAt);                    // [SERIES][2][GROUPS][STATES], of all blocks
    Shared<Weight> weights = shared_memory<Weight>(4 * kWeightsAt);  // [kResidentWeights]
    Shared<float> gates = floats(kGatesAt);                  // [SERIES][kChannels] silu(z)
    Shared<float> channels = floats(kChannelsAt);            // [SERIES][kChannels] x after the convolution
    Shared<float> steps = floats(kStepsAt);                  // [SERIES][kHeads] dt
    Shared<float> decays = floats(kDecaysAt);                // [SERIES][kHeads] exp(dt A)
    Shared<float> partials = floats(kPartialsAt);            // [2][SERIES][kParts][kOwnRows + 1], from all blocks
    Shared<float> embedded = floats(kEmbeddedAt);            // [SERIES][CLUSTER][kOwnRows], from all blocks
    Shared<float> residual = floats(kResidualAt);            // [SERIES][kOwnRows] of the stream
    Shared<float> windows = floats(kWindowsAt);              // [LAYERS][SERIES][kConvChannels][TAPS - 1]
    Shared<float> constants = floats(kConstantsAt);          // [kBlockConstants]
    Shared<float> stop = floats(kStopAt);                    // [1]
};

// What a block waits for, and the bytes that make it complete; a block on its own has its barrier instead.
struct Exchange {
    Arrivals arrivals;
    int bytes;
    int parity = 0;

    DEVICE void prepare() const {
        if (CLUSTER > 1 && threadIdx.x == 0) {
            prepare_arrivals(arrivals);
            expect_arrivals(arrivals, bytes);
        }
    }
    DEVICE void send(Shared<float> words, int index, int rank, float value) const {
        if constexpr (CLUSTER == 1)
            words[index] = value;
        else
            store_remote(words, index, rank, value, arrivals);
    }
    // All threads must come; what the block's own threads stored before is seen only with a block barrier.
    DEVICE void wait() {
        if constexpr (CLUSTER == 1) {
            block_barrier();
        } else {
            wait_arrivals(arrivals, parity);
            if (threadIdx.x == 0) expect_arrivals(arrivals, bytes);
            parity ^= 1;
        }
    }
};
