// The choice of the CUDA kernels: host logic, needs no GPU.

#include <gtest/gtest.h>

#include <cstring>

#include "gemm/cuda/issue_order.h"
#include "gemm/cuda/plan.h"

namespace dsa::gemm::cuda {
namespace {

Plan plan_of(const PlanRequest& r) {
    return choose_plan(r, built_kernels());
}

PlanRequest dense(int64_t m, int64_t n, int64_t k, bool decode_family) {
    PlanRequest r;
    r.m = m;
    r.n = n;
    r.k = k;
    r.decode_family = decode_family;
    return r;
}

TEST(CudaKernels, FitABlockOfTheDevice) {
    ASSERT_FALSE(built_kernels().empty());
    for (const BuiltKernel& built : built_kernels()) {
        const KernelConfig& c = built.config;
        EXPECT_LE(c.shared_bytes(), kSharedBytes);
        EXPECT_GE(c.stages(), 3) << describe(c);
        EXPECT_EQ(c.side_m() % (64 * c.math_groups), 0);
        // ELF
        EXPECT_EQ(built.cubin[0], 0x7f);
        EXPECT_EQ(built.cubin[1], 'E');
    }
}

TEST(CudaKernels, AreListedOnce) {
    const auto kernels = built_kernels();
    for (size_t i = 0; i < kernels.size(); ++i)
        for (size_t j = 0; j < i; ++j)
            EXPECT_FALSE(kernels[i].config == kernels[j].config) << i << " " << j;
}

// Of each instruction all but the control bits stays; what keeps its operand for the next one is
// followed by one that reads the same.
TEST(CudaKernels, IssueOrderChangesControlBitsOnly) {
    constexpr uint64_t kControl = uint64_t{15} << 41 | uint64_t{1} << 45 | uint64_t{15} << 58;
    constexpr uint64_t kFfma = 0x223;
    const auto word = [](const unsigned char* p) {
        uint64_t value = 0;
        std::memcpy(&value, p, sizeof value);
        return value;
    };
    int ordered = 0;
    for (const BuiltKernel& built : built_kernels()) {
        if (!gains_by_issue_order(built.config)) continue;
        const std::vector<unsigned char> now = with_issue_order(built.cubin);
        ASSERT_EQ(now.size(), cubin_size(built.cubin));
        EXPECT_EQ(with_issue_order(now.data()), now);
        int changed = 0;
        for (size_t i = 0; i + 32 <= now.size(); i += 16) {
            const uint64_t low = word(&now[i]), high = word(&now[i + 8]);
            EXPECT_EQ(low, word(built.cubin + i));
            const uint64_t before = word(built.cubin + i + 8);
            if (high == before) continue;
            ++changed;
            EXPECT_EQ(high & ~kControl, before & ~kControl);
            EXPECT_EQ(low & 0xfff, kFfma);
            EXPECT_GE(high >> 41 & 15, before >> 41 & 15);
            if ((high >> 58 & 15) != 0) {
                EXPECT_EQ(high >> 58 & 15, 2U);  // operand b
                EXPECT_EQ(word(&now[i + 16]) & 0xfff, kFfma);
                EXPECT_EQ(word(&now[i + 16]) >> 32 & 255, low >> 32 & 255);
            }
        }
        EXPECT_GE(changed, built.config.tile_n / 8) << describe(built.config);
        ++ordered;
    }
    EXPECT_GE(ordered, 9);
}

// Any shape and number of rows has a kernel, in both kinds of output.
TEST(CudaPlan, ServesEveryShape) {
    for (const bool f32 : {false, true})
        for (const int64_t n : {8, 128, 576, 2112, 4096, 7168, 24576, 32768, 129280})
            for (const int64_t k : {16, 128, 512, 1536, 7168, 16384})
                for (const int64_t m : {1, 3, 16, 17, 64, 100, 128, 129, 300, 1000, 4096, 100000}) {
                    PlanRequest r = dense(m, n, k, m <= 128);
                    r.f32_out = f32;
                    EXPECT_GT(plan_of(r).us(), 0.0) << m << " " << n << " " << k;
                    for (const Groups groups : {Groups::kContiguous, Groups::kMasked}) {
                        r.groups = groups;
                        r.num_groups = 7;
                        EXPECT_EQ(plan_of(r).config.groups, groups);
                    }
                }
}

// The order of sums of the decode family must not depend on the number of rows.
TEST(CudaPlan, DecodeOrderDependsOnTheWeightOnly) {
    for (const int64_t n : {128, 576, 1536, 2112, 4096, 7168, 24576})
        for (const int64_t k : {128, 512, 1536, 7168, 16384}) {
            const KernelConfig one = plan_of(dense(1, n, k, true)).config;
            for (int64_t m = 2; m <= 128; ++m) {
                const KernelConfig c = plan_of(dense(m, n, k, true)).config;
                EXPECT_EQ(c.split_k, one.split_k) << m << " " << n << " " << k;
            }
        }
}

TEST(CudaPlan, SplitsKeepBlocksBusyWithoutASecondRound) {
    for (const int sms : {114, 132})
        for (int64_t n = 8; n < 40000; n += 56)
            for (const int64_t k : {16, 128, 1024, 7168, 16384}) {
                const int split = decode_split(n, k, sms);
                EXPECT_GE(split, 1);
                if (split == 1) continue;
                EXPECT_LE((n + 63) / 64 * split, sms) << n;
                EXPECT_GE((k + 127) / 128, 8 * split) << k;
            }
    EXPECT_EQ(decode_split(2112, 7168, 132), 2);
    EXPECT_EQ(decode_split(4096, 7168, 132), 2);
    EXPECT_EQ(decode_split(576, 7168, 132), 4);
    EXPECT_EQ(decode_split(7168, 16384, 132), 1);
}

TEST(CudaPlan, ManyRowsTakeLargeTilesAndFewTheSmallest) {
    EXPECT_EQ(plan_of(dense(4096, 7168, 16384, false)).config.tile_m, 256);
    EXPECT_EQ(plan_of(dense(5, 7168, 16384, true)).config.tile_m, 8);
    EXPECT_EQ(plan_of(dense(9, 7168, 16384, true)).config.tile_m, 16);
    PlanRequest r = dense(32 * 20, 4096, 7168, false);
    r.groups = Groups::kContiguous;
    r.num_groups = 32;
    EXPECT_TRUE(plan_of(r).config.swapped);
    EXPECT_EQ(plan_of(r).config.tile_m, 32);
}

TEST(CudaPlan, StreamedWeightsGetALongerRing) {
    EXPECT_TRUE(plan_of(dense(1024, 4096, 7168, false)).config.direct);
    EXPECT_FALSE(plan_of(dense(4096, 4096, 7168, false)).config.direct);
    PlanRequest r = dense(32 * 256, 7168, 2048, false);
    r.groups = Groups::kContiguous;
    r.num_groups = 32;
    EXPECT_TRUE(plan_of(r).config.direct);
    r.m = 4 * 8192;
    r.num_groups = 4;
    EXPECT_FALSE(plan_of(r).config.direct);
}

TEST(CudaPlan, ManyRoundsOfLongTilesAreDynamic) {
    EXPECT_TRUE(plan_of(dense(4096, 24576, 1536, false)).dynamic);
    EXPECT_FALSE(plan_of(dense(4096, 32768, 512, false)).dynamic);  // 4 blocks of k a tile
    EXPECT_FALSE(plan_of(dense(1024, 4096, 7168, false)).dynamic);  // one round
    EXPECT_FALSE(plan_of(dense(64, 24576, 1536, true)).dynamic);    // few rows
}

TEST(CudaPlan, ExplainsItselfInOneLine) {
    const PlanRequest r = dense(64, 7168, 16384, true);
    const std::string text = explain(r, plan_of(r));
    EXPECT_NE(text.find("memory bounds"), std::string::npos) << text;
    EXPECT_EQ(text.find('\n'), std::string::npos);
    const PlanRequest many = dense(4096, 7168, 16384, false);
    EXPECT_NE(explain(many, plan_of(many)).find("multiplying bounds"), std::string::npos);
}

TEST(CudaPlan, RefusesWithoutAKernel) {
    EXPECT_ANY_THROW(choose_plan(dense(1, 8, 16, true), {}));
}

}  // namespace
}  // namespace dsa::gemm::cuda
