#pragma once
// The kernels that were compiled with the project (gemm/cuda/CMakeLists.txt lists them).

#include <span>

#include "gemm/cuda/kernel_config.h"

namespace dsa::gemm::cuda {

struct BuiltKernel {
    KernelConfig config;
    const unsigned char* cubin;
};
std::span<const BuiltKernel> built_kernels();

}  // namespace dsa::gemm::cuda
