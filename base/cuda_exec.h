#pragma once
// The execution context of ops on the GPU: the stream they are ordered on, memory that they use
// while they run, and what the caller chose for all of them. One context belongs to one stream and
// one thread at a time.

#include <cstdint>
#include <functional>
#include <string_view>

#include "base/device.h"

namespace dsa {

// Which order of sums the products take (docs/numerics.md).
enum class GemmFamily {
    kByRows,  // decode for up to 128 rows, prefill above
    kDecode,  // decode for any number of rows
};

struct CudaExec {
    void* stream = nullptr;
    int multiprocessors = 0;
    void* workspace = nullptr;  // device memory of one op at a time, 256-byte aligned
    int64_t workspace_bytes = 0;
    int32_t* counter = nullptr;  // on the device, 0 between ops: of work that blocks take in turn
    device::Buffer memory;       // holds both
    GemmFamily gemm_family = GemmFamily::kByRows;
    // Where no kernel that was built ahead is as good as one that could be compiled, it is: at the
    // first such product, in about a second, unless an earlier process kept it (docs/cuda.md).
    bool compile_kernels = true;
    // Given one line about the kernel that was picked, for each product; empty: nobody asks.
    std::function<void(std::string_view)> explain;
};
// memory_bytes: of the workspace and 256 more.
CudaExec make_cuda_exec(void* stream, int64_t memory_bytes = int64_t{32} << 20);

}  // namespace dsa
