// Products against double precision: shapes x ISA x operand types x misalignment.

#include "gemm/gemm.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "dsa/error.h"
#include "testing/gemm_operands.h"

namespace dsa::gemm {
namespace {

using testing::expect_near;
using testing::OpContext;
using testing::OwnedWeight;
using testing::Random;
using testing::random_rows;
using testing::random_weight;
using testing::Rows;
using testing::run_gemm;
using testing::weight_at;

struct Shape {
    int64_t m, n, k;
};
const Shape kShapes[] = {{1, 1, 1},       {1, 16, 128},   {1, 37, 200},    {1, 400, 640},
                         {2, 17, 129},    {3, 128, 64},   {4, 16, 256},    {5, 130, 320},
                         {7, 256, 96},    {13, 70, 2048}, {64, 48, 512},   {131, 33, 384},
                         {300, 300, 130}, {1, 40, 4700},  {100, 40, 1100}, {530, 17, 140},
                         {3, 100, 8300},  {7, 75, 2100},  {16, 50, 2050},  {1, 21, 4096}};

// The weight as int8 products see it: 128 of k rounded to multiples of 1/64 of the largest power of
// two that is not above them all.
std::vector<double> requantised(const Weight& w) {
    std::vector<double> value(static_cast<size_t>(w.n * w.k));
    for (int64_t j = 0; j < w.n; ++j)
        for (int64_t k0 = 0; k0 < w.k; k0 += 128) {
            const int64_t end = std::min(w.k, k0 + 128);
            const auto code = [&](int64_t k) {
                return static_cast<double>(
                    to_float(e4m3{static_cast<const uint8_t*>(w.data)[j * w.k + k]}));
            };
            double largest = 0.0;
            for (int64_t k = k0; k < end; ++k) largest = std::max(largest, std::fabs(code(k)));
            const double scale = w.scale_inv[j / 128 * num_blocks(w.k) + k0 / 128];
            const double unit = std::exp2(std::floor(std::log2(largest)) - 6.0);
            for (int64_t k = k0; k < end && largest > 0.0; ++k)  // ties go to even
                value[static_cast<size_t>(j * w.k + k)] =
                    std::nearbyint(code(k) / unit) * unit * scale;
        }
    return value;
}

class GemmIsa : public ::testing::TestWithParam<Isa> {};
INSTANTIATE_TEST_SUITE_P(All, GemmIsa, ::testing::ValuesIn(supported_isas()),
                         [](const auto& param) { return std::string(to_string(param.param)); });

TEST_P(GemmIsa, DenseMatchesDouble) {
    OpContext context(GetParam());
    Random random(1);
    const std::pair<DType, DType> types[] = {{DType::kE4M3, DType::kE4M3},
                                             {DType::kBF16, DType::kE4M3},
                                             {DType::kI8, DType::kE4M3},
                                             {DType::kBF16, DType::kBF16}};
    for (const Shape& s : kShapes) {
        for (const auto& [a_type, b_type] : types) {
            for (const bool f32 : {false, true}) {
                SCOPED_TRACE(::testing::Message() << s.m << "x" << s.n << "x" << s.k << " "
                                                  << to_string(a_type) << " " << to_string(b_type));
                const Rows a = random_rows(random, a_type, s.m, s.k);
                const OwnedWeight b =
                    random_weight(random, b_type, s.n, s.k, 2 * (1 + random.below(20)));
                std::vector<double> value;  // of b
                if (a_type == DType::kI8) value = requantised(b.view);
                const int64_t ldd = s.n + 3;
                std::vector<float> d32(static_cast<size_t>(s.m * ldd), -7.0F);
                std::vector<bf16> d16(static_cast<size_t>(s.m * ldd), to_bf16(-7.0F));
                run_gemm(context.exec, {s.m,
                                        a.view,
                                        b.view,
                                        {f32 ? static_cast<void*>(d32.data()) : d16.data(),
                                         f32 ? DType::kF32 : DType::kBF16, ldd}});
                for (int64_t i = 0; i < s.m; ++i) {
                    for (int64_t j = 0; j < s.n; ++j) {
                        double want = 0.0;
                        double magnitude = 0.0;
                        for (int64_t k = 0; k < s.k; ++k) {
                            const double x =
                                a.value[static_cast<size_t>(i * s.k + k)] *
                                (value.empty() ? weight_at(b.view, j, k)
                                               : value[static_cast<size_t>(j * s.k + k)]);
                            want += x;
                            magnitude += std::fabs(x);
                        }
                        const auto at = static_cast<size_t>(i * ldd + j);
                        expect_near(f32 ? d32[at] : to_float(d16[at]), want, magnitude, s.k, !f32);
                    }
                    for (int64_t j = s.n; j < ldd; ++j)  // nothing beyond a row is touched
                        ASSERT_EQ(f32 ? d32[static_cast<size_t>(i * ldd + j)]
                                      : to_float(d16[static_cast<size_t>(i * ldd + j)]),
                                  -7.0F);
                }
            }
        }
    }
}

TEST_P(GemmIsa, EveryCodeOfTheWeightWidensExactly) {
    OpContext context(GetParam());
    // Row j of B has code j in column 0; A picks that column out.
    const int64_t k = 128;
    std::vector<e4m3> codes(static_cast<size_t>(256 * k));
    for (int64_t j = 0; j < 256; ++j)
        codes[static_cast<size_t>(j * k)].bits = static_cast<uint8_t>(j);
    const std::vector<float> scales(2, 1.0F);
    for (const int64_t m : {1, 5}) {
        std::vector<bf16> a(static_cast<size_t>(m * k));
        for (int64_t i = 0; i < m; ++i) a[static_cast<size_t>(i * k)] = to_bf16(1.0F);
        std::vector<float> d(static_cast<size_t>(m * 256));
        bf16_fp8_gemm_nt(context.exec, {m,
                                        {a.data(), DType::kBF16, k, nullptr, 0, 0},
                                        {codes.data(), DType::kE4M3, scales.data(), 256, k},
                                        {d.data(), DType::kF32, 256}});
        for (int64_t i = 0; i < m; ++i) {
            for (int64_t j = 0; j < 256; ++j) {
                const float want = to_float(e4m3{static_cast<uint8_t>(j)});
                const float got = d[static_cast<size_t>(i * 256 + j)];
                if (std::isnan(want)) {
                    ASSERT_TRUE(std::isnan(got)) << "code " << j;
                } else {
                    ASSERT_EQ(got, want) << "code " << j;
                }
            }
        }
    }
}

// int8 by every largest magnitude: the same as plain C++, whose table the test above checks.
TEST_P(GemmIsa, RequantisationIsTheSameForEveryLargestCode) {
    Random random(7);
    const int64_t n = 128;
    const int64_t k = 128;
    const int64_t m = 9;
    std::vector<e4m3> codes(static_cast<size_t>(n * k));
    for (int64_t j = 0; j < n; ++j)
        for (int64_t i = 0; i < k; ++i)  // row j: codes 0 .. j with either sign
            codes[static_cast<size_t>(j * k + i)].bits =
                static_cast<uint8_t>((i == 5 ? j : random.below(j + 1)) | (random.below(2) << 7));
    const std::vector<float> scales(1, 0.37F);
    Rows a = random_rows(random, DType::kI8, m, k);
    const auto product = [&](Isa isa, int64_t rows) {
        OpContext context(isa);
        std::vector<float> d(static_cast<size_t>(rows * n));
        int8_fp8_gemm_nt(context.exec, {rows,
                                        a.view,
                                        {codes.data(), DType::kE4M3, scales.data(), n, k},
                                        {d.data(), DType::kF32, n}});
        return d;
    };
    const auto expect_same = [&](int64_t rows) {
        const std::vector<float> want = product(Isa::kPortable, rows);
        const std::vector<float> got = product(GetParam(), rows);
        for (size_t i = 0; i < want.size(); ++i) {
            const bool nan_row = static_cast<int64_t>(i) % n == 127;  // its largest code is a NaN
            ASSERT_EQ(std::isnan(want[i]), nan_row);
            if (nan_row) {
                ASSERT_TRUE(std::isnan(got[i])) << i;
            } else {
                ASSERT_EQ(got[i], want[i]) << "row " << i / n << ", largest code " << i % n;
            }
        }
    };
    expect_same(1);
    expect_same(m);
    a.codes[3].bits = 0x80;  // -128, which rows quantised here do not have
    expect_same(1);
    expect_same(m);
}

TEST_P(GemmIsa, Int8RowsAreRoundedAndNanSpoilsItsRow) {
    OpContext context(GetParam());
    Random random(8);
    const int64_t m = 5;
    const int64_t k = 300;
    std::vector<bf16> x = random.bf16s(m * k);
    for (int64_t i = 0; i < k; ++i) x[static_cast<size_t>(1 * k + i)] = to_bf16(0.0F);
    x[static_cast<size_t>(2 * k + 140)] = to_bf16(NAN);
    x[static_cast<size_t>(3 * k + 7)] = to_bf16(-INFINITY);
    std::vector<int8_t> q(x.size());
    std::vector<float> scale(static_cast<size_t>(m * 3));
    quantize_1x128_int8(context.exec, {m, k, x.data(), k, q.data(), scale.data()});
    for (int64_t i = 0; i < m; ++i)
        for (int64_t j = 0; j < k; ++j) {
            const float s = scale[static_cast<size_t>(i * 3 + j / 128)];
            const float value = to_float(x[static_cast<size_t>(i * k + j)]);
            const auto got = static_cast<float>(q[static_cast<size_t>(i * k + j)]);
            ASSERT_GE(got, -127.0F);
            if ((i == 2 && j / 128 == 1) || (i == 3 && j / 128 == 0)) {
                ASSERT_TRUE(std::isnan(s));
            } else {
                ASSERT_NEAR(got * s, value, s * 0.502F) << i << " " << j;
            }
        }
    const OwnedWeight b = random_weight(random, DType::kE4M3, 40, k);
    for (const int64_t rows : {m, int64_t{1}}) {
        std::vector<float> d(static_cast<size_t>(rows * 40));
        const int64_t first = m - rows == 0 ? 0 : 3;
        int8_fp8_gemm_nt(context.exec,
                         {rows,
                          {q.data() + first * k, DType::kI8, k, scale.data() + first * 3, 3, 1},
                          b.view,
                          {d.data(), DType::kF32, 40}});
        for (int64_t i = 0; i < rows; ++i)
            for (int64_t j = 0; j < 40; ++j)
                EXPECT_EQ(std::isnan(d[static_cast<size_t>(i * 40 + j)]),
                          i + first == 2 || i + first == 3);
    }
}

TEST_P(GemmIsa, NanAndInfStayInTheirRow) {
    OpContext context(GetParam());
    Random random(3);
    const int64_t m = 6;
    const int64_t n = 20;
    const int64_t k = 256;
    Rows a = random_rows(random, DType::kBF16, m, k);
    a.plain[static_cast<size_t>(1 * k + 5)] = to_bf16(NAN);
    a.plain[static_cast<size_t>(4 * k + 200)] = to_bf16(INFINITY);
    const OwnedWeight b = random_weight(random, DType::kE4M3, n, k);
    std::vector<float> d(static_cast<size_t>(m * n));
    bf16_fp8_gemm_nt(context.exec, {m, a.view, b.view, {d.data(), DType::kF32, n}});
    for (int64_t i = 0; i < m; ++i)
        for (int64_t j = 0; j < n; ++j)
            EXPECT_EQ(std::isfinite(d[static_cast<size_t>(i * n + j)]), i != 1 && i != 4)
                << i << " " << j;
}

TEST(Gemm, WrongArgumentsAreNamed) {
    OpContext context(Isa::kPortable);
    Random random(9);
    const OwnedWeight b = random_weight(random, DType::kE4M3, 16, 128);
    const std::vector<bf16> a = random.bf16s(128);
    float d[16];
    const GemmParams good{
        1, {a.data(), DType::kBF16, 128, nullptr, 0, 0}, b.view, {d, DType::kF32, 16}};
    const auto message = [&](GemmParams p) -> std::string {
        try {
            bf16_fp8_gemm_nt(context.exec, p);
        } catch (const Error& e) {
            EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument);
            return e.what();
        }
        return "";
    };
    EXPECT_EQ(message(good), "");
    GemmParams p = good;
    p.m = 0;
    EXPECT_NE(message(p).find("m is 0"), std::string::npos);
    p = good;
    p.d.ld = 15;
    EXPECT_NE(message(p).find("row stride 15"), std::string::npos);
    p = good;
    p.b.scale_inv = nullptr;
    EXPECT_NE(message(p).find("without scales"), std::string::npos);
    p = good;
    p.a.dtype = DType::kE4M3;
    EXPECT_NE(message(p).find("F8_E4M3"), std::string::npos);
}

}  // namespace
}  // namespace dsa::gemm
