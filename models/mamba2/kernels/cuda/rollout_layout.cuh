// Sizes of a rollout, all known when it is compiled, and where its things lie in shared memory.
//
// Given by plan.py: WIDTH, INNER, STATES, HEAD_CHANNELS, GROUPS, GROUP_CHANNELS, TAPS, LAYERS, INPUTS, OUTPUTS, FEEDBACK,
// CLUSTER, SERIES, THREADS, RESIDENT_LAYERS, STATE_IN_REGISTERS, WEIGHT_BF16, NORM_EPS, STEP_LOW, STEP_HIGH, THREADS_PER_CHANNEL, and
// SHARED_BYTES and BLOCK_WEIGHTS to hold both sides together.
#pragma once

#include "matvec.cuh"

#if WEIGHT_BF16
using Weight = unsigned short;
#else
using Weight = float;
#endif

#if CLUSTER > 1
#define ROLLOUT_KERNEL CLUSTER_KERNEL(THREADS, CLUSTER)
#else
#define ROLLOUT_KERNEL KERNEL(THREADS)
#endif

DEVICE constexpr int ceil_div(int a, int b) { return (a + b - 1) / b; }
DEVICE constexpr int at_least_one(int a) { return a > 1 ? a : 1; }

constexpr int kWarps = THREADS / kWarp;

// A block's share of a layer.
constexpr int kChannels = INNER / CLUSTER;
constexpr int kAllMaps = 2 * GROUPS * STATES;  // B, then C
constexpr int kAllConvChannels = INNER + kAllMaps;
constexpr int kMaps = kAllMaps / CLUSTER;
constexpr int kConvChannels = kChannels + kMaps;
constexpr int kHeads = at_least_one(kChannels / HEAD_CHANNELS);
constexpr int kHeadChannels = kChannels / kHeads;
constexpr int kInRows = 2 * kChannels + kMaps + kHeads;  // z, x, B or C, dt

// Parts of the channels that each lie in one block and one group of the gated norm.
constexpr int kLocalParts = at_least_one(GROUPS / CLUSTER);
constexpr int kParts = CLUSTER * kLocalParts;
constexpr int kPartChannels = kChannels / kLocalParts;

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

constexpr int kStreamLength = row_length(WIDTH);
constexpr int kPartLength = row_length(kPartChannels);
constexpr int kFedLength = row_length(kFed);

// Weights of a block: head, feedback with known inputs, then the layers.
constexpr int kHeadWeights = kOutputs * kStreamLength;
constexpr int kStackWeights = kHeadWeights + WIDTH * kFedLength;
constexpr int kInWeights = kInRows * kStreamLength;
constexpr int kLayerWeights = kInWeights + kLocalParts * WIDTH * kPartLength;
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

// Shared memory, in floats; what load4 reads comes first, so that it is aligned.
constexpr int kGatedAt = SERIES * kStreamLength;
constexpr int kFedAt = kGatedAt + SERIES * kLocalParts * kPartLength;
constexpr int kZeroedFloats = kFedAt + SERIES * kFedLength;
constexpr int kMapsAt = kZeroedFloats;
constexpr int kWeightsAt = kMapsAt + SERIES * kAllMaps;
constexpr int kWeightFloats = ceil_div(kResidentWeights * static_cast<int>(sizeof(Weight)), 4);
constexpr int kRmsAt = kWeightsAt + kWeightFloats;
constexpr int kProjectedAt = kRmsAt + SERIES;
constexpr int kChannelsAt = kProjectedAt + SERIES * kInRows;
constexpr int kStepsAt = kChannelsAt + SERIES * kChannels;
constexpr int kDecaysAt = kStepsAt + SERIES * kHeads;
constexpr int kPartialsAt = kDecaysAt + SERIES * kHeads;
constexpr int kSquaresAt = kPartialsAt + SERIES * kParts * WIDTH;
constexpr int kEmbeddedAt = kSquaresAt + SERIES * kParts;
constexpr int kWindowsAt = kEmbeddedAt + SERIES * CLUSTER * WIDTH;
constexpr int kConstantsAt = kWindowsAt + LAYERS * SERIES * kConvChannels * (TAPS - 1);
constexpr int kStopAt = kConstantsAt + kBlockConstants;
constexpr int kSharedFloats = kStopAt + 1;
static_assert(4 * kSharedFloats == SHARED_BYTES, "plan.py and the kernel lay shared memory out alike");

struct RolloutMemory {
    DEVICE static Shared<float> floats(int at) { return shared_memory<float>(4 * at); }

    Shared<float> stream = floats(0);                        // [SERIES][kStreamLength]
    Shared<float> gated = floats(kGatedAt);                  // [SERIES][kLocalParts][kPartLength]
    Shared<float> fed = floats(kFedAt);                      // [SERIES][kFedLength] outputs fed back, known inputs
    Shared<float> maps = floats(kMapsAt);                    // [SERIES][2][GROUPS][STATES], of all blocks
    Shared<Weight> weights = shared_memory<Weight>(4 * kWeightsAt);  // [kResidentWeights]
    Shared<float> inverse_rms = floats(kRmsAt);              // [SERIES]
    Shared<float> projected = floats(kProjectedAt);          // [SERIES][kInRows]
    Shared<float> channels = floats(kChannelsAt);            // [SERIES][kChannels] x after the convolution
    Shared<float> steps = floats(kStepsAt);                  // [SERIES][kHeads] dt
    Shared<float> decays = floats(kDecaysAt);                // [SERIES][kHeads] exp(dt A)
    Shared<float> partials = floats(kPartialsAt);            // [SERIES][kParts][WIDTH] of out_proj, from all blocks
    Shared<float> squares = floats(kSquaresAt);              // [SERIES][kParts]
    Shared<float> embedded = floats(kEmbeddedAt);            // [SERIES][CLUSTER][WIDTH] partial embeddings
    Shared<float> windows = floats(kWindowsAt);              // [LAYERS][SERIES][kConvChannels][TAPS - 1]
    Shared<float> constants = floats(kConstantsAt);          // [kBlockConstants]
    Shared<float> stop = floats(kStopAt);                    // [1]
};
