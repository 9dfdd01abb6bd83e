#pragma once
// Runs one kernel of the family.

#include <cstdint>

#include "base/cuda_exec.h"
#include "gemm/cuda/kernel_config.h"
#include "gemm/cuda/product_shape.h"

namespace dsa::gemm::cuda {

// A product on the device; pointers are device pointers.
struct Problem : ProductShape {
    const void* a = nullptr;  // [m (masked: num_groups * m), k], row stride lda
    int64_t lda = 0;
    const float* a_scale =
        nullptr;  // [ceil(k / 128)][aligned_m]; masked: one behind another, a group each
    int64_t aligned_m = 0;
    const void* b = nullptr;         // [num_groups][n, k]
    const float* b_scale = nullptr;  // [num_groups][ceil(n / 128)][ceil(k / 128)]
    void* d = nullptr;               // rows as those of A, row stride ldd
    int64_t ldd = 0;
    const int32_t* group_rows = nullptr;  // contiguous: offsets [num_groups + 1]; masked: counts
};

// How a kernel runs on a problem.
struct Launch {
    KernelConfig config;
    int band = 8;                   // tiles along m next to one another in the order of tiles
    bool weight_read_once = false;  // one tile along m: the weight need not stay in L2
    bool dynamic = false;           // blocks take tiles as they get ready, not in turn
    int expected_tiles_m = 0;       // of most groups; 0: unknown. Changes no bits
};
// Compiles the kernel first if it was not built ahead and is not kept (jit.h).
void run(CudaExec& exec, const Launch& launch, const Problem& p);

}  // namespace dsa::gemm::cuda
