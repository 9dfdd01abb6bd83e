#include "fuzz/allocation_budget.h"

#include <malloc.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <limits>
#include <new>

namespace {

std::atomic<int64_t> live{0};
std::atomic<int64_t> limit{std::numeric_limits<int64_t>::max()};
std::atomic<int64_t> refused{0};

int64_t size_of_block(void* p) {
    return static_cast<int64_t>(malloc_usable_size(p));
}

void* allocate(size_t bytes, size_t alignment) {
    const auto wanted = static_cast<int64_t>(
        std::min(bytes, static_cast<size_t>(std::numeric_limits<int64_t>::max() / 2)));
    if (live.load() > limit.load() - wanted) {
        int64_t none = 0;
        refused.compare_exchange_strong(none, wanted);
        throw std::bad_alloc();
    }
    const size_t size = std::max<size_t>(bytes, 1);
    void* p = alignment == 0
                  ? std::malloc(size)
                  : std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
    if (p == nullptr) throw std::bad_alloc();
    live += size_of_block(p);
    return p;
}

void release(void* p) {
    if (p == nullptr) return;
    live -= size_of_block(p);
    std::free(p);
}

}  // namespace

namespace dsa::testing {

void set_allocation_budget(int64_t bytes) {
    refused = 0;
    limit = live.load() + bytes;
}

int64_t refused_allocation() {
    return refused.load();
}

}  // namespace dsa::testing

// The forms that are not listed call these.
void* operator new(size_t bytes) {
    return allocate(bytes, 0);
}
void* operator new(size_t bytes, std::align_val_t alignment) {
    return allocate(bytes, static_cast<size_t>(alignment));
}
void operator delete(void* p) noexcept {
    release(p);
}
void operator delete(void* p, size_t) noexcept {
    release(p);
}
void operator delete(void* p, std::align_val_t) noexcept {
    release(p);
}
void operator delete(void* p, size_t, std::align_val_t) noexcept {
    release(p);
}
// Not so under AddressSanitizer, whose own array and nothrow forms would not be counted.
void* operator new[](size_t bytes) {
    return allocate(bytes, 0);
}
void* operator new[](size_t bytes, std::align_val_t alignment) {
    return allocate(bytes, static_cast<size_t>(alignment));
}
void* operator new(size_t bytes, const std::nothrow_t&) noexcept {
    try {
        return allocate(bytes, 0);
    } catch (const std::bad_alloc&) {
        return nullptr;
    }
}
void* operator new[](size_t bytes, const std::nothrow_t&) noexcept {
    return operator new(bytes, std::nothrow);
}
void operator delete[](void* p) noexcept {
    release(p);
}
void operator delete[](void* p, size_t) noexcept {
    release(p);
}
void operator delete[](void* p, std::align_val_t) noexcept {
    release(p);
}
void operator delete[](void* p, size_t, std::align_val_t) noexcept {
    release(p);
}
void operator delete(void* p, const std::nothrow_t&) noexcept {
    release(p);
}
void operator delete[](void* p, const std::nothrow_t&) noexcept {
    release(p);
}
