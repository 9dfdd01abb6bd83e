// Kernels that are compiled at run time, and the folder that keeps them: needs NVRTC, no GPU.

#include <gtest/gtest.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <set>
#include <thread>

#include "dsa/error.h"
#include "gemm/cuda/jit.h"
#include "gemm/cuda/plan.h"

namespace dsa::gemm::cuda {
namespace {

namespace fs = std::filesystem;

// A small kernel that is not built ahead.
KernelConfig small_kernel() {
    KernelConfig c;
    c.groups = Groups::kMasked;
    c.tile_m = 64;
    c.tile_n = 32;
    c.math_groups = 1;
    return c;
}

class CudaJit : public ::testing::Test {
  protected:
    void SetUp() override {
        std::string pattern = (fs::temp_directory_path() / "dsa_jit_XXXXXX").string();
        ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
        folder_ = pattern;
    }
    void TearDown() override { fs::remove_all(folder_); }
    fs::path file() const { return folder_ / kernel_file_name(small_kernel()); }
    size_t files() const {
        return static_cast<size_t>(
            std::distance(fs::directory_iterator(folder_), fs::directory_iterator()));
    }

    fs::path folder_;
};

double seconds_since(std::chrono::steady_clock::time_point begin) {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

TEST_F(CudaJit, KeepsWhatItCompiles) {
    const auto begin = std::chrono::steady_clock::now();
    const std::vector<unsigned char> first = compiled_kernel(small_kernel(), folder_);
    std::printf("compiled in %.2f s\n", seconds_since(begin));
    ASSERT_GT(first.size(), 1000U);
    EXPECT_EQ(fs::file_size(file()), first.size());
    EXPECT_EQ(files(), 1U);
    const auto written = fs::last_write_time(file());
    EXPECT_EQ(compiled_kernel(small_kernel(), folder_), first);
    EXPECT_EQ(fs::last_write_time(file()), written);
}

TEST_F(CudaJit, ReplacesDamagedFiles) {
    const std::vector<unsigned char> good = compiled_kernel(small_kernel(), folder_);
    for (const size_t size : {size_t{0}, size_t{40}, good.size() / 2, good.size() - 1}) {
        fs::resize_file(file(), size);
        EXPECT_EQ(compiled_kernel(small_kernel(), folder_), good) << size;
        EXPECT_EQ(fs::file_size(file()), good.size());
    }
    std::ofstream(file(), std::ios::binary) << std::string(good.size(), 'x');
    EXPECT_EQ(compiled_kernel(small_kernel(), folder_), good);
    EXPECT_EQ(files(), 1U);
}

TEST_F(CudaJit, WorksWithoutAFolder) {
    const std::vector<unsigned char> good = compiled_kernel(small_kernel(), folder_);
    EXPECT_EQ(compiled_kernel(small_kernel(), {}), good);
    EXPECT_EQ(compiled_kernel(small_kernel(), file() / "below a file"), good);
}

TEST_F(CudaJit, ThreadsMayAskForTheSame) {
    std::vector<std::vector<unsigned char>> got(3);
    std::vector<std::thread> threads;
    threads.reserve(got.size());
    for (auto& bytes : got)
        threads.emplace_back([&] { bytes = compiled_kernel(small_kernel(), folder_ / "new"); });
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(got[1], got[0]);
    EXPECT_EQ(got[2], got[0]);
    EXPECT_EQ(compiled_kernel(small_kernel(), folder_ / "new"), got[0]);
}

TEST_F(CudaJit, NamesTellKernelsApart) {
    std::set<std::string> names;
    size_t kernels = 0;
    for (const Groups groups : {Groups::kDense, Groups::kContiguous, Groups::kMasked})
        for (const bool f32 : {false, true})
            for (const int64_t n : {576, 1536, 2112, 7168}) {  // parts of k: 8, 4, 2 and 1
                PlanRequest r;
                r.groups = groups;
                r.f32_out = f32;
                r.m = 64;
                r.n = n;
                r.k = 16384;
                r.decode_family = true;
                if (groups != Groups::kDense && n != 7168) continue;
                for (const KernelConfig& c : family_for(r)) {
                    EXPECT_LE(c.shared_bytes(), kSharedBytes);
                    EXPECT_GE(c.stages(), 3) << describe(c);
                    names.insert(kernel_file_name(c));
                    ++kernels;
                }
            }
    EXPECT_EQ(names.size(), kernels);
    EXPECT_GT(kernels, 80U);
}

// The whole family compiles: the kernels that take longest, and one of each kind.
TEST_F(CudaJit, CompilesTheFamily) {
    for (const bool f32 : {false, true})
        for (const Groups groups : {Groups::kDense, Groups::kMasked}) {
            KernelConfig c;
            c.groups = groups;
            c.f32_out = f32;
            c.tile_m = 256;
            const auto begin = std::chrono::steady_clock::now();
            EXPECT_GT(compiled_kernel(c, folder_).size(), 1000U);
            std::printf("256 x 128, f32 %d: %.2f s\n", f32, seconds_since(begin));
        }
    PlanRequest r;
    r.m = 64;
    r.n = 576;
    r.k = 16384;
    r.decode_family = true;
    r.f32_out = true;
    for (const KernelConfig& c : family_for(r))
        EXPECT_GT(compiled_kernel(c, folder_).size(), 1000U);
}

TEST(CudaJitPlan, CompilesOnlyWhereNothingBuiltIsAsGood) {
    PlanRequest r;
    for (const auto& [n, k] :
         {std::pair{2112, 7168}, {24576, 1536}, {32768, 512}, {7168, 16384}, {4096, 7168}})
        for (const int m : {1, 16, 64, 128, 300, 4096}) {
            r.m = m;
            r.n = n;
            r.k = k;
            r.decode_family = m <= 128;
            EXPECT_TRUE(choose_plan(r, built_kernels(), true).built) << m << " " << n << " " << k;
        }
    r.f32_out = true;
    const Plan plan = choose_plan(r, built_kernels(), true);
    EXPECT_FALSE(plan.built);
    EXPECT_EQ(plan.config.tile_m, 256);
    EXPECT_NE(explain(r, plan).find("compiled at run time"), std::string::npos);
    EXPECT_TRUE(choose_plan(r, built_kernels()).built);
}

}  // namespace
}  // namespace dsa::gemm::cuda

int main(int argc, char** argv) {
    if (const std::string why = dsa::gemm::cuda::why_no_compiler(); !why.empty()) {
        std::fprintf(stderr, "skipped: %s\n", why.c_str());
        return 77;
    }
    ::testing::InitGoogleTest(&argc, argv);
    return RUN_ALL_TESTS();
}
