// One aligned block of memory, cut into parts from front to back.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <stdexcept>

#if defined(__linux__)
#include <sys/mman.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace graphtide {

constexpr std::size_t kAlignment = 64;

// Under AddressSanitizer the parts of an arena are kept apart, and what lies between them may not be touched.
#if defined(__SANITIZE_ADDRESS__)
constexpr std::size_t kGap = kAlignment;
inline void forbid(void* from, std::size_t bytes) { ASAN_POISON_MEMORY_REGION(from, bytes); }
inline void allow(void* from, std::size_t bytes) { ASAN_UNPOISON_MEMORY_REGION(from, bytes); }
#else
constexpr std::size_t kGap = 0;
inline void forbid(void*, std::size_t) {}
inline void allow(void*, std::size_t) {}
#endif

// What a part of so many bytes takes up in an arena.
inline std::size_t padded_bytes(std::size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment + kGap; }

// Zeroed memory. Large blocks ask for huge pages: weights are streamed once a step, and small pages stop the prefetcher.
class Arena {
  public:
    explicit Arena(std::size_t bytes) : size_(padded_bytes(bytes)) {
        constexpr std::size_t huge_page = std::size_t{2} << 20;
        const std::size_t alignment = size_ >= huge_page / 2 ? huge_page : kAlignment;
        size_ = (size_ + alignment - 1) / alignment * alignment;
        block_.reset(static_cast<char*>(std::aligned_alloc(alignment, size_ ? size_ : alignment)));
        if (!block_) throw std::bad_alloc();
#if defined(__linux__)
        // Only a wish: without huge pages everything works, a little slower.
        if (alignment == huge_page) madvise(block_.get(), size_, MADV_HUGEPAGE);
#endif
        std::memset(block_.get(), 0, size_);
        forbid(block_.get(), size_);
    }
    ~Arena() { allow(block_.get(), size_); }
    Arena(const Arena&) = delete;
    Arena& operator=(const Arena&) = delete;

    template <class T>
    T* take(std::size_t count) {
        const std::size_t bytes = padded_bytes(count * sizeof(T));
        if (bytes > size_ - used_) throw std::logic_error("the arena is too small");
        T* part = reinterpret_cast<T*>(block_.get() + used_);
        allow(part, count * sizeof(T));
        used_ += bytes;
        return part;
    }

  private:
    struct Free {
        void operator()(char* block) const { std::free(block); }
    };
    std::size_t size_, used_ = 0;
    std::unique_ptr<char, Free> block_;
};

}  // namespace graphtide
