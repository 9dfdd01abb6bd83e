#pragma once
// What a product is, without its operands: what plans and launches have in common.

#include <cstdint>

#include "gemm/cuda/kernel_config.h"

namespace dsa::gemm::cuda {

struct ProductShape {
    Groups groups = Groups::kDense;
    int64_t m = 0;  // rows of A in all; masked: room for each group
    int64_t n = 0, k = 0;
    int64_t num_groups = 1;
    bool f32_out = false;
};

}  // namespace dsa::gemm::cuda
