#pragma once
// A linear layer's weight as the checkpoint has it: [n, k] row-major, y = x W^T. Owns nothing.

#include <cstdint>

#include "base/dtypes.h"

namespace dsa::gemm {

inline constexpr int64_t kScaleBlock = 128;

inline int64_t num_blocks(int64_t n) {
    return (n + kScaleBlock - 1) / kScaleBlock;
}

struct Weight {
    const void* data = nullptr;        // [n, k] of dtype
    DType dtype = DType::kE4M3;        // kE4M3 or kBF16
    const float* scale_inv = nullptr;  // kE4M3: [num_blocks(n), num_blocks(k)], multipliers
    int64_t n = 0;
    int64_t k = 0;

    bool is_fp8() const { return dtype == DType::kE4M3; }
};

}  // namespace dsa::gemm
