#pragma once
// Aligned memory: AlignedBuffer owns a block, Arena hands out pieces of one.
// Both are for one thread at a time.

#include <cstddef>
#include <cstdint>
#include <span>

namespace dsa {

inline constexpr int64_t kAlignment = 64;  // a cache line, an AVX-512 vector

inline int64_t align_up(int64_t n, int64_t alignment = kAlignment) {
    return (n + alignment - 1) / alignment * alignment;
}

// Zeroed pages straight from the kernel: physical memory is taken as it is touched.
class AlignedBuffer {
  public:
    AlignedBuffer() = default;
    // Throws kOutOfMemory with the size asked for.
    explicit AlignedBuffer(int64_t bytes);
    ~AlignedBuffer();
    AlignedBuffer(AlignedBuffer&& other) noexcept;
    AlignedBuffer& operator=(AlignedBuffer&& other) noexcept;

    uint8_t* data() const { return data_; }
    int64_t size() const { return size_; }

  private:
    uint8_t* data_ = nullptr;
    int64_t size_ = 0;
};

// Stack-like allocator for scratch: take pieces, give them back by leaving a Scope. It never grows:
// its size comes from the memory plan, and asking for more is a kInternal error.
class Arena {
  public:
    Arena() = default;
    explicit Arena(int64_t capacity) : buffer_(capacity) {}

    // n elements, uninitialised, aligned to kAlignment.
    template <typename T>
    T* alloc(int64_t n) {
        return reinterpret_cast<T*>(take(n * static_cast<int64_t>(sizeof(T))));
    }
    // Bytes that alloc<T>(n) takes, for plans.
    template <typename T>
    static int64_t bytes_for(int64_t n) {
        return align_up(n * static_cast<int64_t>(sizeof(T)));
    }
    int64_t peak() const { return peak_; }

    // Everything taken during its life is given back at its end.
    class Scope {
      public:
        explicit Scope(Arena& arena) : arena_(arena), mark_(arena.used_) {}
        ~Scope() { arena_.used_ = mark_; }
        Scope(const Scope&) = delete;
        Scope& operator=(const Scope&) = delete;

      private:
        Arena& arena_;
        int64_t mark_;
    };

  private:
    uint8_t* take(int64_t bytes);

    AlignedBuffer buffer_;
    int64_t used_ = 0;
    int64_t peak_ = 0;
};

}  // namespace dsa
