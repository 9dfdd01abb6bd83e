#pragma once
// A typed, shaped view of memory that somebody else owns (a mapped file, an arena). Row-major,
// contiguous. Cheap to copy; never frees.

#include <cstdint>
#include <string>
#include <vector>

#include "base/dtypes.h"

namespace dsa {

struct TensorView {
    const void* data = nullptr;
    DType dtype = DType::kF32;
    std::vector<int64_t> shape;

    int64_t numel() const {
        int64_t n = 1;
        for (int64_t d : shape) n *= d;
        return n;
    }
    int64_t bytes() const { return numel() * size_of(dtype); }

    // The caller has checked dtype.
    template <typename T>
    const T* as() const {
        return static_cast<const T*>(data);
    }
};

// "[576, 7168]"
inline std::string shape_string(const std::vector<int64_t>& shape) {
    std::string s = "[";
    for (size_t i = 0; i < shape.size(); ++i) s += (i ? ", " : "") + std::to_string(shape[i]);
    return s + "]";
}

}  // namespace dsa
