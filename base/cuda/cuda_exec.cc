#include "base/cuda_exec.h"

namespace dsa {

CudaExec make_cuda_exec(void* stream, int64_t workspace_bytes) {
    CudaExec exec;
    exec.stream = stream;
    exec.multiprocessors = device::properties().multiprocessors;
    exec.workspace = device::Buffer(workspace_bytes);
    return exec;
}

}  // namespace dsa
