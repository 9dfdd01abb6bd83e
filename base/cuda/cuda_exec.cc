#include "base/cuda_exec.h"

namespace dsa {

CudaExec make_cuda_exec(void* stream, int64_t scratch_bytes) {
    CudaExec exec;
    exec.stream = stream;
    exec.multiprocessors = device::properties().multiprocessors;
    exec.scratch_bytes = scratch_bytes;
    exec.workspace = device::Buffer(exec.scratch_offset() + scratch_bytes);
    device::fill(exec.workspace.data(), 0xff, exec.scratch_offset(), stream);
    return exec;
}

}  // namespace dsa
