// One kernel of the family, compiled for DSA_KERNEL_CONFIG (the initialisers of a KernelConfig).

#include "fp8_gemm.cuh"

namespace dsa::gemm::cuda {
inline constexpr KernelConfig kConfig{DSA_KERNEL_CONFIG};
}

extern "C" __global__ void __launch_bounds__(dsa::gemm::cuda::kConfig.threads(), 1)
    fp8_gemm(const __grid_constant__ dsa::gemm::cuda::ptx::TensorMap a_map,
             const __grid_constant__ dsa::gemm::cuda::ptx::TensorMap b_map,
             const __grid_constant__ dsa::gemm::cuda::ptx::TensorMap d_map,
             const __grid_constant__ dsa::gemm::cuda::KernelArgs args) {
    extern __shared__ unsigned char memory[];
    dsa::gemm::cuda::run<dsa::gemm::cuda::kConfig>(a_map, b_map, d_map, args, memory);
}
