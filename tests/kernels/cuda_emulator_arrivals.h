// The emulated side of counted remote stores: a part of cuda_emulator.h, which includes it.
// Bytes carry no phase: they count for the phase that is current when they arrive. So whoever stores for a phase, or
// expects it, must know that the one before has ended; that is looked for, not only that the sums fit in this order.
#pragma once

struct Arrivals {
    int byte;
};

namespace emulator {

constexpr int kArrivalsBytes = 8, kMostExpected = (1 << 20) - 1;

inline void report_awaited(const Fiber& fiber) {
    const Counter& counter = *fiber.awaits;
    if (counter.armed)
        report("deadlock: %d of %d expected bytes have arrived in phase %u at byte %d of block %d, line %d waits",
               counter.arrived, counter.expected, counter.phase, counter.byte, fiber.now.block, fiber.now.line);
    else
        report("deadlock: phase %u at byte %d of block %d was not expected, %d bytes have arrived, line %d waits",
               counter.phase, counter.byte, fiber.now.block, counter.arrived, fiber.now.line);
}

// Bytes that nobody waited for: a GPU's block could be gone when they arrive.
inline void report_open_exchanges(const Block& block) {
    for (const Counter& counter : block.counters) {
        if (counter.arrived > 0)
            report("exchange left open: %d of %d expected bytes have arrived in phase %u at byte %d of block %d",
                   counter.arrived, counter.expected, counter.phase, counter.byte, block.rank);
        if (counter.ended_bytes > 0 && counter.waited < counter.phase)
            report("exchange left open: nobody waited for the %d bytes of phase %u at byte %d of block %d",
                   counter.ended_bytes, counter.phase - 1, counter.byte, block.rank);
    }
}

// Whether this thread can know that a phase of a counter of `block` has ended.
inline bool knows_ended(const Fiber& fiber, const Block& block, int index, unsigned phase) {
    return fiber.known.ended[block.rank][index] > phase;
}

inline bool placed(const Block& block, Arrivals a) {
    if (a.byte >= 0 && a.byte % kArrivalsBytes == 0 && a.byte + kArrivalsBytes <= static_cast<int>(block.shared.size()))
        return true;
    report("arrivals at byte %d are misaligned or outside the %zu bytes of shared memory", a.byte, block.shared.size());
    return false;
}

inline int find_prepared(const Block& block, Arrivals a) {
    for (size_t index = 0; index < block.counters.size(); ++index)
        if (block.counters[index].byte == a.byte) return static_cast<int>(index);
    return -1;
}

// The index of the counter, or -1 if there is none that this thread may use.
inline int find_counter(const Block& block, Arrivals a) {
    if (!placed(block, a)) return -1;
    const int index = find_prepared(block, a);
    if (index < 0)
        report("arrivals at byte %d of block %d are used and were not prepared", a.byte, block.rank);
    else if (!ordered(block.counters[static_cast<size_t>(index)].prepared, self()))
        report("race: arrivals at byte %d of block %d are used with no barrier behind their preparation", a.byte,
               block.rank);
    return index;
}

inline void check_phase_before(const char* what, const Block& block, int index) {
    const Counter& counter = block.counters[static_cast<size_t>(index)];
    const Fiber& fiber = self();
    if (counter.phase > 0 && !knows_ended(fiber, block, index, counter.phase - 1))
        report("race: thread %d of block %d, after line %d, %s phase %u at byte %d of block %d, with nothing that "
               "tells it that the phase before has ended",
               fiber.thread, fiber.now.block, fiber.now.line, what, counter.phase, counter.byte, block.rank);
}

inline void end_phase_if_complete(Counter& counter, const Block& block) {
    if (!counter.armed) return;
    if (counter.arrived > counter.expected)
        report("%d bytes have arrived in phase %u at byte %d of block %d, %d were expected", counter.arrived,
               counter.phase, counter.byte, block.rank, counter.expected);
    if (counter.arrived < counter.expected) return;
    counter.ended_bytes = counter.arrived;
    counter.passed = counter.gathered;
    counter.armed = false;
    counter.arrived = counter.expected = 0;
    ++counter.phase;
}

}  // namespace emulator

inline void prepare_arrivals(Arrivals a) {
    emulator::Fiber& fiber = emulator::self();
    emulator::Block& block = *fiber.block;
    if (!emulator::placed(block, a)) return;
    if (emulator::find_prepared(block, a) >= 0) {
        emulator::report("arrivals at byte %d of block %d are prepared twice", a.byte, block.rank);
        return;
    }
    if (block.counters.size() == emulator::kBlockCounters) {
        emulator::report("more than %u arrivals are prepared", emulator::kBlockCounters);
        return;
    }
    for (int byte = 0; byte < emulator::kArrivalsBytes; byte += 2)
        emulator::note_write(block, static_cast<size_t>(a.byte + byte), emulator::kHoldsCounter);
    block.counters.emplace_back();
    block.counters.back().byte = a.byte;
    block.counters.back().prepared = fiber.now;
}

inline void expect_arrivals(Arrivals a, int bytes) {
    emulator::Block& block = *emulator::self().block;
    const int index = emulator::find_counter(block, a);
    if (index < 0) return;
    emulator::Counter& counter = block.counters[static_cast<size_t>(index)];
    if (bytes < 0 || bytes > emulator::kMostExpected)
        emulator::report("%d bytes are expected at byte %d: no count that an mbarrier holds", bytes, a.byte);
    if (counter.armed) {
        emulator::report("phase %u at byte %d of block %d is expected twice", counter.phase, a.byte, block.rank);
        return;
    }
    emulator::check_phase_before("expects", block, index);
    counter.armed = true;
    counter.expected = bytes;
    emulator::end_phase_if_complete(counter, block);
}

inline void store_remote(Shared<float> words, int index, int rank, float value, Arrivals a) {
    if (rank < 0 || rank >= static_cast<int>(emulator::machine->blocks.size())) {
        emulator::report("a store goes to block %d, which the cluster does not have", rank);
        return;
    }
    emulator::Block& block = emulator::machine->blocks[static_cast<size_t>(rank)];
    const int at = emulator::find_counter(block, a);
    if (at < 0) return;
    const size_t byte = words.byte + index * sizeof(float);
    if (byte % sizeof(float)) emulator::report("misaligned counted store at byte %zu", byte);
    emulator::check_phase_before("stores for", block, at);
    emulator::write_shared<float>(block, byte, value, at);
    emulator::Counter& counter = block.counters[static_cast<size_t>(at)];
    emulator::merge(counter.gathered, emulator::self().known);
    counter.arrived += static_cast<int>(sizeof(float));
    emulator::end_phase_if_complete(counter, block);
}

inline void wait_arrivals(Arrivals a, int parity, int line = __builtin_LINE()) {
    emulator::Fiber& fiber = emulator::self();
    emulator::Block& block = *fiber.block;
    fiber.now.line = line;
    const int index = emulator::find_counter(block, a);
    if (index < 0) return;
    if (parity != 0 && parity != 1) emulator::report("line %d waits for parity %d, not 0 or 1", line, parity);
    emulator::Counter& counter = block.counters[static_cast<size_t>(index)];
    fiber.parity = static_cast<unsigned>(parity) % 2;
    fiber.awaits = &counter;
    while (fiber.asleep()) emulator::switch_to(fiber.context, emulator::machine->scheduler);
    fiber.awaits = nullptr;
    // Parity 1 passes before the first phase has ended, as on a GPU, and tells nothing.
    if (counter.phase == 0) return;
    emulator::merge(fiber.known, counter.passed);
    fiber.known.ended[block.rank][index] = counter.waited = counter.phase;
}
