// Products against double precision: shapes x ISA x operand types x misalignment, and the promise
// that a row's bits depend on nothing but that row.

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
using testing::product_in_steps;
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

TEST_P(GemmIsa, RowsHaveTheSameBitsWhateverMAndThreads) {
    Random random(2);
    const int64_t m = 70;
    const int64_t n = 200;
    struct Case {
        DType a_type, b_type;
        int64_t k;
    };
    // Short and long columns, and some that share sets of the caches: one row and a few rows read
    // them in several ways.
    const Case cases[] = {{DType::kBF16, DType::kE4M3, 320},  {DType::kBF16, DType::kE4M3, 1100},
                          {DType::kBF16, DType::kE4M3, 2100}, {DType::kBF16, DType::kE4M3, 8300},
                          {DType::kE4M3, DType::kE4M3, 1100}, {DType::kE4M3, DType::kE4M3, 2100},
                          {DType::kI8, DType::kE4M3, 1100},   {DType::kBF16, DType::kBF16, 320},
                          {DType::kBF16, DType::kBF16, 4700}, {DType::kBF16, DType::kE4M3, 4096},
                          {DType::kI8, DType::kE4M3, 4096},   {DType::kBF16, DType::kBF16, 4096},
                          {DType::kI8, DType::kE4M3, 2088},   {DType::kBF16, DType::kE4M3, 16400}};
    for (const auto& [a_type, b_type, k] : cases) {
        const Rows a = random_rows(random, a_type, m, k);
        const OwnedWeight b = random_weight(random, b_type, n, k, 8);  // starts inside a line
        OpContext context(GetParam(), 2);
        const std::vector<float> whole = product_in_steps(context.exec, a.view, b.view, m, m);
        for (const int threads : {1, 3}) {
            OpContext other(GetParam(), threads);
            for (const int64_t step : {int64_t{1}, int64_t{3}, int64_t{7}, int64_t{12}, int64_t{16},
                                       int64_t{31}, int64_t{40}, int64_t{64}, m}) {
                const std::vector<float> pieces =
                    product_in_steps(other.exec, a.view, b.view, m, step);
                ASSERT_EQ(std::memcmp(whole.data(), pieces.data(), whole.size() * 4), 0)
                    << threads << " threads, " << step << " rows at a time";
            }
        }
    }
}

// Rows are shared out as well as columns where those are few for the threads: so many columns that
// one thread has all rows of a step in a tile.
TEST_P(GemmIsa, RowsOfOneTileHaveTheSameBitsWhateverTheirNumber) {
    Random random(3);
    const int64_t m = 70;
    const int64_t n = 520;
    const int64_t k = 300;
    const std::pair<DType, DType> types[] = {{DType::kBF16, DType::kE4M3},
                                             {DType::kE4M3, DType::kE4M3},
                                             {DType::kI8, DType::kE4M3},
                                             {DType::kBF16, DType::kBF16}};
    for (const auto& [a_type, b_type] : types) {
        const Rows a = random_rows(random, a_type, m, k);
        const OwnedWeight b = random_weight(random, b_type, n, k, 8);
        OpContext context(GetParam(), 1);
        const std::vector<float> one = product_in_steps(context.exec, a.view, b.view, m, 1);
        for (const int64_t step :
             {int64_t{5}, int64_t{16}, int64_t{23}, int64_t{40}, int64_t{64}, m})
            ASSERT_EQ(std::memcmp(one.data(),
                                  product_in_steps(context.exec, a.view, b.view, m, step).data(),
                                  one.size() * 4),
                      0)
                << step << " rows at a time";
    }
}

// A bf16 NaN of either sign and any payload.
bf16 any_nan(Random& random) {
    return {static_cast<uint16_t>(0x7f81 + random.below(0x7f) + 0x8000 * random.below(2))};
}

// Which of several NaNs a multiply-add passes on depends on the order of its operands.
TEST_P(GemmIsa, SumsOfSeveralNansHaveTheSameBitsWhateverM) {
    Random random(4);
    OpContext context(GetParam());
    const int64_t m = 20;
    const int64_t n = 48;
    const int64_t k = 640;
    for (const DType b_type : {DType::kE4M3, DType::kBF16}) {
        std::vector<bf16> a = random.bf16s(m * k);
        for (int64_t i = 0; i < k * m; i += 3)
            a[static_cast<size_t>(i / k * k + random.below(k))] = any_nan(random);
        OwnedWeight b = random_weight(random, b_type, n, k);
        for (int64_t i = 0; i < k * n; i += 3) {
            const int64_t at = i / k * k + random.below(k);
            const bf16 nan = any_nan(random);
            if (b_type == DType::kE4M3)
                b.bytes[static_cast<size_t>(at)] = static_cast<uint8_t>(nan.bits >> 8 | 0x7f);
            else
                std::memcpy(b.bytes.data() + 2 * at, &nan, 2);
        }
        const auto run = [&](int64_t step) {
            return product_in_steps(context.exec, {a.data(), DType::kBF16, k, nullptr, 0, 0},
                                    b.view, m, step);
        };
        const std::vector<float> whole = run(m);
        for (const float x : whole) ASSERT_TRUE(std::isnan(x));
        for (const int64_t step : {1, 3, 16})
            EXPECT_EQ(std::memcmp(whole.data(), run(step).data(), whole.size() * 4), 0)
                << step << " rows at a time";
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

// Columns side by side whose largest codes are close together or as far apart as can be, zeros and
// NaNs among them, and scales whose products are not normal numbers.
TEST_P(GemmIsa, Int8SumsHaveTheSameBitsWhateverTheColumnsBesideThem) {
    Random random(9);
    OpContext context(GetParam());
    const int64_t n = 200;
    const int64_t k = 600;
    const int64_t m = 70;
    OwnedWeight b = random_weight(random, DType::kE4M3, n, k);
    for (int64_t j = 0; j < n; ++j) {
        const int64_t apart = j < 32 ? 15 : (j / 32 - 1) * 3;  // binades
        const int64_t end = 8 * (15 - j % 2 * apart) + 7;
        for (int64_t i = 0; i < k; ++i) {
            int64_t magnitude = random.below(end);
            if (j % 8 == 4) magnitude = 0x7e;
            if (j == 70 || (j == 9 && i < 256)) magnitude = 0;
            if (j == 130 && i == 300) magnitude = 0x7f;
            b.bytes[static_cast<size_t>(j * k + i)] =
                static_cast<uint8_t>(magnitude | (j % 8 == 4 ? 0 : random.below(2) << 7));
        }
    }
    Rows a = random_rows(random, DType::kI8, m, k);
    for (int64_t i = 0; i < k; ++i) a.codes[static_cast<size_t>(i)].bits = 127;  // the largest sums
    const auto sums = [&](int64_t step) {
        return product_in_steps(context.exec, a.view, b.view, m, step);
    };
    const auto expect_same = [&](float b_scale, float a_scale, bool of_all_rows) {
        for (float& x : b.scales) x = b_scale;
        for (int64_t i = 0; i < m; ++i)
            for (int64_t block = 0; block < num_blocks(k); ++block)
                a.scale[static_cast<size_t>(i * num_blocks(k) + block)] =
                    i == 7 || of_all_rows ? a_scale : 0.02F + 1e-4F * static_cast<float>(i);
        const std::vector<float> whole = sums(m);
        for (const int64_t step : {1, 7, 20})
            ASSERT_EQ(std::memcmp(whole.data(), sums(step).data(), whole.size() * 4), 0)
                << step << " rows at a time, scales " << b_scale << " and " << a_scale;
    };
    for (const float b_scale : {0.37F, 1.1e-36F, 0x116c3p-149F, 3e37F, 0.0F})
        for (const float a_scale : {0.02F, 1.1e-36F, 1e-40F, 3e38F, 0.0F}) {
            expect_same(b_scale, a_scale, false);
            expect_same(b_scale, a_scale, true);
        }
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
