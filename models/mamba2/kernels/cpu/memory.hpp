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

namespace graphtide {

constexpr std::size_t kAlignment = 64;

inline std::size_t padded_bytes(std::size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

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
    }

    template <class T>
    T* take(std::size_t count) {
        const std::size_t bytes = padded_bytes(count * sizeof(T));
        if (bytes > size_ - used_) throw std::logic_error("the arena is too small");
        T* part = reinterpret_cast<T*>(block_.get() + used_);
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
