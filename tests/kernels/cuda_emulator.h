// Runs CUDA kernels on the CPU, for tests: every thread is a fiber, all blocks of a cluster live at once, clusters run one
// after the other. It looks for what a GPU would not report:
//   - barriers that not all threads reach, or reach at different places; shuffles that not all lanes join
//   - shared memory that is read before it is written (it starts as NaN), or touched outside its bounds
//   - two threads that touch one word of shared memory, one of them writing, with no barrier or counted store between
//   - counted stores whose phases do not end, are counted wrongly, or are not waited for
// It does not see races on global memory, the order of memory within a barrier phase, or anything of time.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <deque>
#include <map>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#define DEVICE inline
#define __global__
#define KERNEL(threads) static void
#define PAIRED_KERNEL(threads) static void
#define CLUSTER_KERNEL(threads, blocks) static void

struct float4 {
    float x, y, z, w;
};
struct Index3 {
    unsigned x = 0, y = 0, z = 0;
};
using std::max;
using std::min;

namespace emulator {

constexpr size_t kStackBytes = 256 << 10;
constexpr int kWarpLanes = 32;
constexpr unsigned kClusterBlocks = 16, kBlockCounters = 4;

// ---- fibers -------------------------------------------------------------------------------------------------------

#if defined(__x86_64__)
using Context = void*;
extern "C" void emulator_switch(Context* from, Context to);
asm(R"(.text
.globl emulator_switch
.type emulator_switch,@function
emulator_switch:
  pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15
  movq %rsp, (%rdi); movq %rsi, %rsp
  popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp
  ret
)");
inline void prepare(Context& context, char* stack, void (*entry)()) {
    auto top = reinterpret_cast<uint64_t*>(stack + kStackBytes);
    *--top = 0;  // keeps the stack aligned as after a call
    *--top = reinterpret_cast<uint64_t>(entry);
    for (int saved = 0; saved < 6; ++saved) *--top = 0;
    context = top;
}
inline void switch_to(Context& from, Context& to) { emulator_switch(&from, to); }
#else
using Context = ucontext_t;
inline void prepare(Context& context, char* stack, void (*entry)()) {
    getcontext(&context);
    context.uc_stack.ss_sp = stack;
    context.uc_stack.ss_size = kStackBytes;
    context.uc_link = nullptr;
    makecontext(&context, entry, 0);
}
inline void switch_to(Context& from, Context& to) { swapcontext(&from, &to); }
#endif

// ---- what runs ----------------------------------------------------------------------------------------------------

// What lies behind a thread: of block b, all that it did in its first epochs[b] epochs, each ended by a block barrier, and
// the ends of the first ended[b][c] phases of its counter c.
struct Clock {
    std::array<unsigned, kClusterBlocks> epochs{};
    std::array<std::array<unsigned, kBlockCounters>, kClusterBlocks> ended{};
};

struct Barrier {
    int expected = 0, arrived = 0, line = 0;
    unsigned generation = 0;
    Clock gathered{}, passed{};
};

// Who touched two bytes last, and in which epoch of its block.
struct Access {
    int fiber = -1, block = -1, line = 0;
    unsigned block_epoch = 0, warp_epoch = 0;
};
// The counter and the phase of the counted store that wrote a word; or one of these.
constexpr int kPlainStore = -1, kHoldsCounter = -2;
struct Word {
    Access write, reads[2];
    int counter = kPlainStore;
    unsigned phase = 0;
};

// Arrivals that were prepared.
struct Counter {
    int byte = 0, expected = 0, arrived = 0, ended_bytes = 0;
    bool armed = false;
    unsigned phase = 0;
    Access prepared;
    Clock gathered{}, passed{};
    unsigned waited = 0;  // phases that some thread waited for
};

struct Block;
struct Fiber {
    Context context{};
    Block* block = nullptr;
    int id = 0, thread = 0;
    bool done = false;
    Barrier* waits = nullptr;
    const Counter* awaits = nullptr;
    unsigned generation = 0, shuffles = 0, tiles = 0, parity = 0;
    Access now;
    Clock known{};
    int lane() const { return thread % kWarpLanes; }
    bool asleep() const {
        return (waits && waits->generation == generation) || (awaits && awaits->phase % 2 == parity);
    }
};
struct TileOperands {
    unsigned a[4], b[2];
};
struct Warp {
    Barrier barrier;
    float values[2][kWarpLanes];
    TileOperands operands[2][kWarpLanes];
};
struct Block {
    int rank = 0;
    Index3 index;
    std::vector<char> shared;
    std::vector<Word> words;
    std::vector<Warp> warps;
    std::deque<Counter> counters;  // at most kBlockCounters
    Barrier barrier;
};
struct Machine {
    std::vector<Block> blocks;
    std::vector<Fiber> fibers;
    Barrier cluster;
    Context scheduler{};
    Fiber* current = nullptr;
    void (*body)(void*) = nullptr;
    void* argument = nullptr;
    std::vector<std::string> findings;
    std::map<const char*, int> known;
    uint64_t order = 0;
};
inline Machine* machine = nullptr;

template <class... Values>
void report(const char* format, Values... values) {
    // A few of each kind, so that no kind hides another.
    int& known = machine->known[format];
    if (known == 3) return;
    char line[256];
    std::snprintf(line, sizeof line, format, values...);
    auto& all = machine->findings;
    if (std::find(all.begin(), all.end(), line) != all.end()) return;
    all.emplace_back(line);
    ++known;
}

inline Fiber& self() { return *machine->current; }

inline void merge(Clock& into, const Clock& from) {
    for (size_t block = 0; block < machine->blocks.size(); ++block) {
        into.epochs[block] = std::max(into.epochs[block], from.epochs[block]);
        for (size_t counter = 0; counter < kBlockCounters; ++counter)
            into.ended[block][counter] = std::max(into.ended[block][counter], from.ended[block][counter]);
    }
}

inline void wait(Barrier& barrier, int line, const char* kind) {
    Fiber& fiber = self();
    if (barrier.arrived == 0) barrier.line = line;
    if (barrier.line != line)
        report("divergent %s: some threads wait at line %d, others at line %d", kind, barrier.line, line);
    const unsigned generation = barrier.generation;
    if (++barrier.arrived == barrier.expected) {
        barrier.arrived = 0;
        barrier.passed = barrier.gathered;
        ++barrier.generation;
        return;
    }
    fiber.waits = &barrier;
    fiber.generation = generation;
    while (barrier.generation == generation) switch_to(fiber.context, machine->scheduler);
    fiber.waits = nullptr;
}

// A barrier that ends an epoch: behind it, every thread knows what any of them knew before.
inline void end_epoch(Barrier& barrier, int line, const char* kind) {
    Fiber& fiber = self();
    fiber.known.epochs[fiber.now.block] = ++fiber.now.block_epoch;
    merge(barrier.gathered, fiber.known);
    wait(barrier, line, kind);
    fiber.known = barrier.passed;
    fiber.now.line = line;
}

inline void enter_fiber() {
    machine->body(machine->argument);
    self().done = true;
    for (;;) switch_to(self().context, machine->scheduler);
}

// Of counted stores, in cuda_emulator_arrivals.h.
inline void report_awaited(const Fiber& fiber);
inline void report_open_exchanges(const Block& block);

inline void report_deadlock() {
    for (const Fiber& fiber : machine->fibers)
        if (!fiber.done && fiber.waits) {
            const Barrier& barrier = *fiber.waits;
            report("deadlock: %d of %d threads wait at the barrier of line %d, the others never come", barrier.arrived,
                   barrier.expected, barrier.line);
        } else if (!fiber.done && fiber.awaits) {
            report_awaited(fiber);
        }
}

// Run the fibers of one cluster; false on a deadlock. The order of the fibers changes with `order`.
inline bool run_cluster() {
    std::vector<Fiber*> order;
    for (Fiber& fiber : machine->fibers) order.push_back(&fiber);
    uint64_t random = machine->order;
    for (size_t left = order.size(); machine->order && left > 1; --left) {
        random = random * 6364136223846793005ull + 1442695040888963407ull;
        std::swap(order[left - 1], order[(random >> 33) % left]);
    }
    for (;;) {
        bool ran = false, left = false;
        for (Fiber* fiber : order) {
            if (fiber->done) continue;
            left = true;
            if (fiber->asleep()) continue;
            ran = true;
            machine->current = fiber;
            switch_to(machine->scheduler, fiber->context);
        }
        if (!left) return true;
        if (!ran) {
            report_deadlock();
            return false;
        }
    }
}

struct Launch {
    unsigned grid_x, grid_y, threads, cluster, shared_bytes;
    uint64_t order;
};

// Run body(argument) in every thread of the launch; returns the findings, one a line.
inline std::string run(const Launch& launch, void (*body)(void*), void* argument) {
    Machine here;
    machine = &here;
    here.body = body;
    here.argument = argument;
    here.order = launch.order;
    const size_t count = static_cast<size_t>(launch.cluster) * launch.threads;
    const size_t bytes = count * kStackBytes;
    char* stacks = static_cast<char*>(
        mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (stacks == MAP_FAILED) return "no memory for the stacks of the emulated threads";
    bool going = launch.grid_x % launch.cluster == 0 && launch.cluster <= kClusterBlocks;
    if (launch.cluster > kClusterBlocks) report("a cluster of %u blocks is too large", launch.cluster);
    else if (!going) report("a grid of %u blocks does not divide into clusters of %u", launch.grid_x, launch.cluster);
    for (unsigned first = 0; going && first < launch.grid_x * launch.grid_y; first += launch.cluster) {
        here.blocks.assign(launch.cluster, Block());
        here.fibers.assign(count, Fiber());
        here.cluster = Barrier();
        here.cluster.expected = static_cast<int>(count);
        for (unsigned rank = 0; rank < launch.cluster; ++rank) {
            Block& block = here.blocks[rank];
            block.rank = static_cast<int>(rank);
            block.index = {(first + rank) % launch.grid_x, (first + rank) / launch.grid_x, 0};
            block.shared.assign(launch.shared_bytes, static_cast<char>(0xff));
            block.words.assign((launch.shared_bytes + 1) / 2, Word());
            block.barrier.expected = static_cast<int>(launch.threads);
            block.warps.assign((launch.threads + kWarpLanes - 1) / kWarpLanes, Warp());
            for (size_t warp = 0; warp < block.warps.size(); ++warp)
                block.warps[warp].barrier.expected =
                    static_cast<int>(std::min<size_t>(kWarpLanes, launch.threads - warp * kWarpLanes));
            for (unsigned thread = 0; thread < launch.threads; ++thread) {
                const size_t id = static_cast<size_t>(rank) * launch.threads + thread;
                Fiber& fiber = here.fibers[id];
                fiber.block = &block;
                fiber.id = static_cast<int>(id);
                fiber.thread = static_cast<int>(thread);
                fiber.now.fiber = fiber.id;
                fiber.now.block = block.rank;
                prepare(fiber.context, stacks + id * kStackBytes, enter_fiber);
            }
        }
        going = run_cluster();
        for (size_t rank = 0; going && rank < launch.cluster; ++rank) report_open_exchanges(here.blocks[rank]);
    }
    munmap(stacks, bytes);
    std::string all;
    for (const std::string& finding : here.findings) all += finding + "\n";
    machine = nullptr;
    return all;
}

}  // namespace emulator

#include "cuda_emulator_shared.h"

#include "cuda_emulator_names.h"

// ---- launches from outside ------------------------------------------------------------------------------------------

namespace emulator {

template <class... Parameters>
struct Call {
    void (*kernel)(Parameters...);
    void** arguments;
    template <size_t... I>
    void with(std::index_sequence<I...>) {
        kernel(*static_cast<std::remove_reference_t<Parameters>*>(arguments[I])...);
    }
    static void body(void* call) { static_cast<Call*>(call)->with(std::index_sequence_for<Parameters...>()); }
};

template <class... Parameters>
int launch(void (*kernel)(Parameters...), const Launch& how, void** arguments, char* findings, size_t size) {
    Call<Parameters...> call{kernel, arguments};
    const std::string found = run(how, Call<Parameters...>::body, &call);
    std::snprintf(findings, size, "%s", found.c_str());
    return found.empty() ? 0 : 1;
}

}  // namespace emulator

// Makes `kernel` callable from outside, with its arguments as cuLaunchKernel takes them.
#define EMULATED(kernel)                                                                                               \
    extern "C" int emulate_##kernel(const emulator::Launch* how, void** arguments, char* findings, size_t size) {      \
        return emulator::launch(&kernel, *how, arguments, findings, size);                                             \
    }
