#include "base/arena.h"

#include <sys/mman.h>

#include <utility>

#include "dsa/error.h"

namespace dsa {

AlignedBuffer::AlignedBuffer(int64_t bytes) : size_(align_up(bytes)) {
    if (size_ == 0) return;
    void* map = ::mmap(nullptr, static_cast<size_t>(size_), PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED)
        throw_error(ErrorCode::kOutOfMemory, "cannot allocate ", size_, " bytes");
    data_ = static_cast<uint8_t*>(map);
}

AlignedBuffer::~AlignedBuffer() {
    if (data_ != nullptr) ::munmap(data_, static_cast<size_t>(size_));
}

AlignedBuffer::AlignedBuffer(AlignedBuffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

AlignedBuffer& AlignedBuffer::operator=(AlignedBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
}

uint8_t* Arena::take(int64_t bytes) {
    const int64_t need = align_up(bytes);
    if (need > buffer_.size() - used_)
        throw_error(ErrorCode::kInternal, "scratch arena of ", buffer_.size(), " bytes: ", need,
                    " more asked for with ", used_, " in use; the memory plan is too small");
    uint8_t* piece = buffer_.data() + used_;
    used_ += need;
    if (used_ > peak_) peak_ = used_;
    return piece;
}

}  // namespace dsa
