// The CUDA products against double precision, and their bits; gemm_cuda_kernels_test.cc has the
// tests of single kernels. Skipped (77) where there is no Hopper GPU.

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>

#include "gemm/cuda/plan.h"
#include "gemm/gemm_cuda.h"
#include "gemm/quantize.h"
#include "testing/cuda_gemm.h"

namespace dsa {
namespace {

using gemm::cuda::Groups;
using testing::CudaCase;
using testing::CudaGemm;
using testing::CudaShape;
using testing::dense;
using testing::kBf16Error;
using testing::kF32Error;

TEST_F(CudaGemm, DenseMatchesDouble) {
    for (const int m : {1, 3, 16, 17, 64, 100, 128, 300, 1000, 4096})
        for (const auto& [n, k] : {std::pair{2112, 7168},
                                   {24576, 1536},
                                   {32768, 512},
                                   {7168, 16384},
                                   {4096, 7168},
                                   {7168, 2048},
                                   {8, 16},
                                   {24, 144},
                                   {200, 400},
                                   {1000, 1040},
                                   {136, 128}}) {
            if (m == 4096 && k == 16384) continue;  // the benchmark's
            EXPECT_LE(error(dense(m, n, k), false), kBf16Error) << m << " " << n << " " << k;
            if (m <= 300 && n <= 4096) {
                EXPECT_LE(error(dense(m, n, k), true), kF32Error) << m << " " << n << " " << k;
            }
        }
}

TEST_F(CudaGemm, GroupsMatchDouble) {
    for (const Groups groups : {Groups::kContiguous, Groups::kMasked})
        for (const std::vector<int>& rows : {std::vector<int>{0, 1, 0, 130, 7, 0},
                                             {256, 255, 257},
                                             {1},
                                             {20, 31, 5, 18},
                                             {0, 0, 3},
                                             {700, 0, 129, 64, 65}})
            for (const auto& [n, k] : {std::pair{512, 384}, {200, 144}, {4096, 1024}})
                for (const bool f32 : {false, true}) {
                    CudaShape s;
                    s.groups = groups;
                    s.rows = rows;
                    s.n = n;
                    s.k = k;
                    EXPECT_LE(error(s, f32), f32 ? kF32Error : kBf16Error)
                        << static_cast<int>(groups) << " " << rows.size() << " " << n << " " << k;
                }
}

// Blocks that share k send each other NaNs as they send numbers.
TEST_F(CudaGemm, NanScalesReachEveryResult) {
    ASSERT_GT(gemm::cuda::decode_split(520, 4096, exec_.multiprocessors), 1);
    for (const int m : {5, 77}) {
        CudaCase test(stream_, dense(m, 520, 4096), false, seed_++);
        const gemm::cuda::Problem& p = test.problem();
        device::fill(const_cast<float*>(p.a_scale), 0xff, p.aligned_m * (p.k / 128) * 4,
                     stream_.handle());
        test.poison();
        test.run(exec_);
        const std::vector<uint8_t> out = test.output();
        for (int64_t row = 0; row < p.m; ++row)
            for (int64_t col = 0; col < p.n; ++col) {
                uint16_t d = 0;
                std::memcpy(&d, out.data() + (row * p.ldd + col) * 2, 2);
                ASSERT_EQ(d, 0x7fff) << row << " " << col;  // not the poison, 0xffff
            }
    }
}

TEST_F(CudaGemm, RepeatsAreEqual) {
    for (const int m : {1, 64, 300}) {
        CudaCase test(stream_, dense(m, 2112, 7168), false, 5);
        const std::vector<uint8_t> first = bits(test);
        for (int i = 0; i < 20; ++i) ASSERT_EQ(bits(test), first) << m;
    }
}

// D's rows when A has only its first m rows.
TEST_F(CudaGemm, RowsDoNotDependOnOtherRows) {
    for (const bool f32 : {false, true})
        for (const int most : {128, 1500}) {
            CudaCase whole(stream_, dense(most, 1544, 3200), f32, 6);
            const std::vector<uint8_t> expected = bits(whole);
            for (const int m : {1, 2, 9, 17, 33, 64, 100, 127, 129, 300, 1000}) {
                if (m >= most || (most > 128 && m <= 128)) continue;
                CudaCase part(stream_, dense(m, 1544, 3200), f32,
                              6);  // A's first rows and B are the same
                part.copy_operands(whole);
                const std::vector<uint8_t> rows = bits(part);
                EXPECT_EQ(std::memcmp(rows.data(), expected.data(), rows.size()), 0)
                    << m << " of " << most << ", " << f32;
            }
        }
}

// The decode family on request: a row of many has the bits of a row alone.
TEST_F(CudaGemm, DecodeFamilyEverywhere) {
    for (const bool f32 : {false, true}) {
        CudaCase whole(stream_, dense(300, 2112, 7168), f32, 8),
            one(stream_, dense(1, 2112, 7168), f32, 8);
        one.copy_operands(whole);
        exec_.gemm_family = GemmFamily::kDecode;
        const std::vector<uint8_t> many = bits(whole), alone = bits(one);
        EXPECT_EQ(std::memcmp(many.data(), alone.data(), alone.size()), 0);
    }
}

// Where no blocks share k, the two families are one.
TEST_F(CudaGemm, FamiliesAgreeWhereKIsWhole) {
    ASSERT_EQ(gemm::cuda::decode_split(7168, 2048, exec_.multiprocessors), 1);
    CudaCase test(stream_, dense(300, 7168, 2048), true, 8);
    const std::vector<uint8_t> prefill = bits(test);
    exec_.gemm_family = GemmFamily::kDecode;
    EXPECT_EQ(bits(test), prefill);
}

TEST_F(CudaGemm, RowMajorScalesGiveEqualBits) {
    CudaCase test(stream_, dense(77, 520, 1040), false, 10);
    const std::vector<uint8_t> expected = bits(test);
    const gemm::cuda::Problem& p = test.problem();
    const int64_t blocks = 9;
    std::vector<float> by_block(static_cast<size_t>(blocks * p.aligned_m)),
        by_row(static_cast<size_t>(77 * blocks));
    device::copy_to_host(by_block.data(), p.a_scale, blocks * p.aligned_m * 4, stream_.handle());
    for (int64_t row = 0; row < 77; ++row)
        for (int64_t b = 0; b < blocks; ++b)
            by_row[static_cast<size_t>(row * blocks + b)] =
                by_block[static_cast<size_t>(b * p.aligned_m + row)];
    device::Buffer scales(77 * blocks * 4);
    device::copy_to_device(scales.data(), by_row.data(), scales.size(), stream_.handle());
    test.poison();
    gemm::fp8_gemm_nt(exec_, {77,
                              {p.a, DType::kE4M3, p.lda, scales.as<float>(), blocks, 1},
                              {p.b, DType::kE4M3, p.b_scale, p.n, p.k},
                              {p.d, DType::kBF16, p.ldd}});
    EXPECT_EQ(test.output(), expected);
}

// Codes and scales are those of the CPU.
TEST_F(CudaGemm, QuantisesAsTheCpu) {
    constexpr int64_t kM = 19, kK = 400, kBlocks = 4, kAligned = 20;
    std::mt19937 random(3);
    std::normal_distribution<float> normal(0.0F, 2.0F);
    std::vector<bf16> x(kM * kK);
    for (size_t i = 0; i < x.size(); ++i)
        x[i] = to_bf16(normal(random) * (i % 400 < 128 ? 1e-7F : 1.0F));
    device::Buffer dx(kM * kK * 2), dq(kM * kK), ds(kBlocks * kAligned * 4);
    device::copy_to_device(dx.data(), x.data(), dx.size(), stream_.handle());
    for (const gemm::ScaleFormat format : {gemm::ScaleFormat::kPlain, gemm::ScaleFormat::kUe8m0}) {
        gemm::quantize_1x128(
            exec_, {kM, kK, dx.as<bf16>(), kK, format, dq.as<e4m3>(), ds.as<float>(), kAligned});
        std::vector<e4m3> q(kM * kK), expected(128);
        std::vector<float> s(kBlocks * kAligned);
        device::copy_to_host(q.data(), dq.data(), dq.size(), stream_.handle());
        device::copy_to_host(s.data(), ds.data(), ds.size(), stream_.handle());
        for (int64_t row = 0; row < kM; ++row)
            for (int64_t b = 0; b < kBlocks; ++b) {
                const int64_t n = std::min<int64_t>(128, kK - b * 128);
                std::vector<float> v;
                for (int64_t i = 0; i < n; ++i)
                    v.push_back(to_float(x[static_cast<size_t>(row * kK + b * 128 + i)]));
                EXPECT_EQ(s[static_cast<size_t>(b * kAligned + row)],
                          gemm::quantize_block(v.data(), n, format, expected.data()));
                EXPECT_EQ(std::memcmp(&q[static_cast<size_t>(row * kK + b * 128)], expected.data(),
                                      static_cast<size_t>(n)),
                          0);
            }
    }
}

std::vector<bf16> random_bf16(int64_t count, uint32_t seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    std::vector<bf16> x(static_cast<size_t>(count));
    for (bf16& v : x) v = to_bf16(normal(random));
    return x;
}

// Relative error, L2, of d = a b^T as the device left it.
double relative_error(const std::vector<bf16>& a, const std::vector<bf16>& b,
                      const std::vector<uint8_t>& d, int64_t n, int64_t k, bool f32) {
    double difference = 0.0, norm = 0.0;
    for (size_t at = 0; at < d.size() / (f32 ? 4 : 2); ++at) {
        const bf16* x = a.data() + static_cast<int64_t>(at) / n * k;
        const bf16* y = b.data() + static_cast<int64_t>(at) % n * k;
        double sum = 0.0;
        for (int64_t i = 0; i < k; ++i) sum += double{to_float(x[i])} * double{to_float(y[i])};
        float got = 0.0F;
        bf16 half;
        if (f32)
            std::memcpy(&got, d.data() + at * 4, 4);
        else
            std::memcpy(&half, d.data() + at * 2, 2);
        const double off = double{f32 ? got : to_float(half)} - sum;
        difference += off * off;
        norm += sum * sum;
    }
    return std::sqrt(difference / norm);
}

TEST_F(CudaGemm, Bf16MatchesDouble) {
    for (const auto& [m, n, k] :
         {std::array<int64_t, 3>{1, 264, 7168}, {37, 1032, 520}, {300, 72, 136}})
        for (const bool f32 : {false, true}) {
            const std::vector<bf16> a = random_bf16(m * k, 1), b = random_bf16(n * k, 2);
            std::vector<uint8_t> d(static_cast<size_t>(m * n * (f32 ? 4 : 2)));
            const device::Buffer a_device(m * k * 2), b_device(n * k * 2),
                d_device(static_cast<int64_t>(d.size()));
            device::copy_to_device(a_device.data(), a.data(), a_device.size(), stream_.handle());
            device::copy_to_device(b_device.data(), b.data(), b_device.size(), stream_.handle());
            const gemm::GemmParams p{m,
                                     {a_device.data(), DType::kBF16, k, nullptr, 0, 0},
                                     {b_device.data(), DType::kBF16, nullptr, n, k},
                                     {d_device.data(), f32 ? DType::kF32 : DType::kBF16, n}};
            try {
                gemm::bf16_gemm_nt(exec_, p);
            } catch (const Error& e) {
                ASSERT_EQ(e.code(), ErrorCode::kUnsupported) << e.what();
                GTEST_SKIP() << e.what();
            }
            device::copy_to_host(d.data(), d_device.data(), d_device.size(), stream_.handle());
            EXPECT_LE(relative_error(a, b, d, n, k, f32), f32 ? 1e-5 : kBf16Error)
                << m << " " << f32;
        }
}

TEST_F(CudaGemm, RefusesBadArguments) {
    CudaCase test(stream_, dense(4, 64, 128), false, 11);
    const gemm::cuda::Problem& p = test.problem();
    const gemm::GemmParams good{4,
                                {p.a, DType::kE4M3, p.lda, p.a_scale, 1, p.aligned_m},
                                {p.b, DType::kE4M3, p.b_scale, p.n, p.k},
                                {p.d, DType::kBF16, p.ldd}};
    gemm::fp8_gemm_nt(exec_, good);
    const auto refuses = [&](auto change) {
        gemm::GemmParams bad = good;
        change(bad);
        EXPECT_THROW(gemm::fp8_gemm_nt(exec_, bad), Error);
    };
    EXPECT_THROW(gemm::bf16_gemm_nt(exec_, good), Error);  // A and B are e4m3
    refuses([](auto& b) { b.m = 0; });
    refuses([](auto& b) { b.b.n = 60; });
    refuses([](auto& b) { b.b.k = 120; });
    refuses([](auto& b) { b.a.dtype = DType::kBF16; });
    refuses([](auto& b) { b.a.scale = nullptr; });
    refuses([](auto& b) { b.a.ld = 130; });
    refuses([](auto& b) { b.d.ld = 60; });
    refuses([](auto& b) { b.d.data = static_cast<uint8_t*>(b.d.data) + 2; });
    stream_.synchronize();
}

}  // namespace
}  // namespace dsa

int main(int argc, char** argv) {
    if (const std::string why = dsa::device::why_unavailable(); !why.empty()) {
        std::fprintf(stderr, "skipped: %s\n", why.c_str());
        return 77;
    }
    ::testing::InitGoogleTest(&argc, argv);
    return RUN_ALL_TESTS();
}
