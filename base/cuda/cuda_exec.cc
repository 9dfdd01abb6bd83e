#include "base/cuda_exec.h"

#include "base/check.h"

namespace dsa {

CudaExec make_cuda_exec(void* stream, int64_t memory_bytes) {
    constexpr int64_t kCounterBytes = 256;
    DSA_CHECK(memory_bytes >= kCounterBytes, "make_cuda_exec: ", memory_bytes,
              " bytes of memory, expected at least ", kCounterBytes);
    CudaExec exec;
    exec.stream = stream;
    exec.multiprocessors = device::properties().multiprocessors;
    exec.memory = device::Buffer(memory_bytes);
    exec.workspace = exec.memory.data();
    exec.workspace_bytes = (memory_bytes - kCounterBytes) / kCounterBytes * kCounterBytes;
    uint8_t* counter = exec.memory.as<uint8_t>() + exec.workspace_bytes;
    exec.counter = reinterpret_cast<int32_t*>(counter);
    device::fill(counter, 0, sizeof(int32_t), stream);
    return exec;
}

}  // namespace dsa
