// Every access to emulated shared memory, and what is wrong with it: a part of cuda_emulator.h, which includes it.
#pragma once

namespace emulator {

// In cuda_emulator_arrivals.h.
inline bool knows_ended(const Fiber& fiber, const Block& block, int index, unsigned phase);

// Whether a barrier, or one and a counted store, lies between what `before` did and what this thread does now.
inline bool ordered(const Access& before, const Fiber& fiber) {
    if (before.fiber < 0 || before.fiber == fiber.id) return true;
    if (before.warp_epoch < fiber.now.warp_epoch && before.fiber / kWarpLanes == fiber.id / kWarpLanes) return true;
    return before.block_epoch < fiber.known.epochs[before.block];
}

inline void check_order(const char* what, const Access& before, const Block& block, const Fiber& fiber, size_t byte) {
    if (!ordered(before, fiber))
        report("race: %s of shared byte %zu of block %d by thread %d of block %d and thread %d of block %d, both "
               "after the barriers or waits of lines %d and %d",
               what, byte, block.rank, before.fiber % block.barrier.expected,
               before.block, fiber.thread, fiber.now.block, before.line, fiber.now.line);
}

// As check_order, for what was written last: a counted store is there when its phase has ended.
inline void check_written(const char* what, const Word& word, const Block& block, const Fiber& fiber, size_t byte) {
    if (word.counter == kHoldsCounter)
        report("shared byte %zu of block %d holds arrivals, and is touched as data", byte, block.rank);
    else if (word.counter == kPlainStore)
        check_order(what, word.write, block, fiber, byte);
    else if (!knows_ended(fiber, block, word.counter, word.phase))
        report("race: %s of shared byte %zu of block %d by thread %d of block %d, after line %d, with no wait for the "
               "counted store of phase %u at byte %d",
               what, byte, block.rank, fiber.thread, fiber.now.block, fiber.now.line, word.phase,
               block.counters[static_cast<size_t>(word.counter)].byte);
}

inline bool inside(const Block& block, size_t byte, size_t size) {
    if (byte + size <= block.shared.size()) return true;
    report("shared memory of %zu bytes is touched at byte %zu", block.shared.size(), byte);
    return false;
}

inline void note_read(Block& block, size_t byte) {
    Word& word = block.words[byte / 2];
    const Fiber& fiber = self();
    if (word.write.fiber < 0) report("shared byte %zu is read before it is written", byte);
    check_written("write and read", word, block, fiber, byte);
    if (word.reads[0].fiber != fiber.id) word.reads[1] = word.reads[0];
    word.reads[0] = fiber.now;
}

inline void note_write(Block& block, size_t byte, int counter) {
    Word& word = block.words[byte / 2];
    const Fiber& fiber = self();
    check_written("writes", word, block, fiber, byte);
    for (const Access& read : word.reads) check_order("read and write", read, block, fiber, byte);
    word.write = fiber.now;
    word.counter = counter;
    word.phase = counter < 0 ? 0 : block.counters[static_cast<size_t>(counter)].phase;
}

template <class T>
T read_shared(Block& block, size_t byte) {
    T value{};
    if (inside(block, byte, sizeof(T))) {
        note_read(block, byte);
        std::memcpy(&value, block.shared.data() + byte, sizeof(T));
    }
    return value;
}

template <class T>
void write_shared(Block& block, size_t byte, T value, int counter = kPlainStore) {
    if (inside(block, byte, sizeof(T))) {
        note_write(block, byte, counter);
        std::memcpy(block.shared.data() + byte, &value, sizeof(T));
    }
}

}  // namespace emulator
