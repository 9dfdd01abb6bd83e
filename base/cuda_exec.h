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
    // Sums that blocks exchange (each byte 0xff between ops), then scratch_bytes of scratch.
    device::Buffer workspace;
    int64_t scratch_bytes = 0;
    GemmFamily gemm_family = GemmFamily::kByRows;
    // Given one line about the kernel that was picked, for each product; empty: nobody asks.
    std::function<void(std::string_view)> explain;

    // One block a multiprocessor may leave the fp32 sums of a tile of 64 x 128 to others.
    int64_t scratch_offset() const { return int64_t{multiprocessors} * 64 * 128 * 4; }
};
CudaExec make_cuda_exec(void* stream, int64_t scratch_bytes = int64_t{32} << 20);

}  // namespace dsa
