// Every CUDA kernel on its own, whether or not a plan picks it. Part of gemm_cuda_test.

#include <gtest/gtest.h>

#include <array>
#include <chrono>
#include <cstdlib>
#include <filesystem>

#include "gemm/cuda/built_kernels.h"
#include "gemm/cuda/jit.h"
#include "gemm/cuda/plan.h"
#include "testing/cuda_gemm.h"

namespace dsa {
namespace {

using gemm::cuda::Groups;
using gemm::cuda::KernelConfig;
using testing::CudaCase;
using testing::CudaGemm;
using testing::CudaShape;
using testing::dense;
using testing::kBf16Error;
using testing::kF32Error;

// Whatever kernel is picked, none is wrong.
TEST_F(CudaGemm, EveryKernelMatchesDouble) {
    for (const auto& built : gemm::cuda::built_kernels()) {
        const KernelConfig& c = built.config;
        CudaShape s;
        s.groups = c.groups;
        s.rows = {c.swapped ? c.tile_m - 3 : 333};
        if (c.groups != Groups::kDense) s.rows.insert(s.rows.end(), {0, c.tile_m, 1, 77});
        s.n = 8 * 37;
        s.k = 1024 * c.split_k + 48;
        CudaCase test(stream_, s, c.f32_out, seed_++);
        test.poison();
        run(exec_, {c, 3}, test.problem());
        EXPECT_LE(test.check(), c.f32_out ? kF32Error : kBf16Error) << describe(c);
    }
}

// Which block takes which tile changes no bits, and the counter is 0 again.
class CudaTiles : public CudaGemm, public ::testing::WithParamInterface<KernelConfig> {
  protected:
    // D of tiles that are taken from the counter as it stands.
    std::vector<uint8_t> taken(CudaCase& test) {
        test.poison();
        run(exec_, {.config = GetParam(), .band = 3, .dynamic = true}, test.problem());
        int32_t counter = -1;
        device::copy_to_host(&counter, exec_.counter, sizeof counter, stream_.handle());
        EXPECT_EQ(counter, 0);
        return test.output();
    }
};

TEST_P(CudaTiles, TakenInAnyOrderGiveEqualBits) {
    const KernelConfig& c = GetParam();
    for (const int k : {48, 560}) {
        CudaShape s;
        s.groups = c.groups;
        s.rows = {600};
        if (c.groups != Groups::kDense) s.rows = {333, 0, c.tile_m, 1, 77, 0};
        s.n = 6152;  // more tiles than there are blocks
        s.k = k;
        CudaCase test(stream_, s, c.f32_out, seed_++);
        test.poison();
        run(exec_, {c, 3}, test.problem());
        EXPECT_LE(test.check(), c.f32_out ? kF32Error : kBf16Error);
        const std::vector<uint8_t> expected = test.output();
        for (int repeat = 0; repeat < 3; ++repeat) EXPECT_EQ(taken(test), expected);
        const int32_t one = 1;  // as if somebody had taken the first tile
        device::copy_to_device(exec_.counter, &one, sizeof one, stream_.handle());
        EXPECT_NE(taken(test), expected);
    }
}

std::vector<KernelConfig> dynamic_kernels() {
    std::vector<KernelConfig> kernels;
    for (const auto& built : gemm::cuda::built_kernels())
        if (built.config.dynamic()) kernels.push_back(built.config);
    return kernels;
}

std::string name_of(const ::testing::TestParamInfo<KernelConfig>& kernel) {
    const KernelConfig& c = kernel.param;
    constexpr const char* kGroups[] = {"Dense", "Contiguous", "Masked"};
    return std::string(kGroups[static_cast<int>(c.groups)]) + (c.swapped ? "Swapped" : "") +
           std::to_string(c.tile_m) + "x" + std::to_string(c.tile_n) + (c.direct ? "Direct" : "") +
           (c.f32_out ? "F32" : "");
}
INSTANTIATE_TEST_SUITE_P(Built, CudaTiles, ::testing::ValuesIn(dynamic_kernels()), name_of);

// What stands between a context and the first product of a shape.
TEST_F(CudaGemm, KernelsLoadInNoTime) {
    using Clock = std::chrono::steady_clock;
    for (const auto& built : gemm::cuda::built_kernels()) {
        const auto begin = Clock::now();
        const device::Library library(built.cubin);
        library.kernel("fp8_gemm", built.config.shared_bytes());
        EXPECT_LT(std::chrono::duration<double>(Clock::now() - begin).count(), 0.5);
    }
}

// Which operand is on the matrix instruction's M side does not change bits.
TEST_F(CudaGemm, SwappedRolesGiveEqualBits) {
    CudaShape s;
    s.groups = Groups::kMasked;
    s.rows = {100, 37, 128};
    s.n = 1032;
    s.k = 2064;
    CudaCase test(stream_, s, false, 9);
    std::vector<uint8_t> first;
    int kernels = 0;
    for (const auto& built : gemm::cuda::built_kernels()) {
        if (built.config.groups != Groups::kMasked || built.config.f32_out) continue;
        test.poison();
        run(exec_, {built.config, 8}, test.problem());
        if (first.empty())
            first = test.output();
        else
            EXPECT_EQ(test.output(), first) << describe(built.config);
        ++kernels;
    }
    EXPECT_GE(kernels, 6);
}

// Kernels compiled at run time: the family for some requests, against the kernel that was built.
TEST_F(CudaGemm, CompiledKernelsGiveEqualBits) {
    if (const std::string why = gemm::cuda::why_no_compiler(); !why.empty()) GTEST_SKIP() << why;
    std::string folder = (std::filesystem::temp_directory_path() / "dsa_cuda_XXXXXX").string();
    ASSERT_NE(::mkdtemp(folder.data()), nullptr);
    ::setenv("XDG_CACHE_HOME", folder.c_str(), 1);
    for (const auto& [m, n, k] : {std::array{300, 1544, 528}, {77, 2112, 7168}}) {
        CudaCase test(stream_, dense(m, n, k), true, seed_++);
        exec_.compile_kernels = false;
        const std::vector<uint8_t> expected = bits(test);
        const gemm::cuda::PlanRequest request{test.problem(), 0, m <= 128, exec_.multiprocessors};
        for (const KernelConfig& c : gemm::cuda::family_for(request)) {
            test.poison();
            run(exec_, {c, 3}, test.problem());
            EXPECT_EQ(test.output(), expected) << describe(c);
        }
        exec_.compile_kernels = true;
        EXPECT_EQ(bits(test), expected);
    }
    std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace dsa
