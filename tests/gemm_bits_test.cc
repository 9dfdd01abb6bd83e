// The promise that a row's bits in a product depend on nothing but that row: not on the rows and
// columns beside it, nor on the number of threads.

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "gemm/gemm.h"
#include "testing/gemm_operands.h"

namespace dsa::gemm {
namespace {

using testing::OpContext;
using testing::OwnedWeight;
using testing::product_in_steps;
using testing::Random;
using testing::random_rows;
using testing::random_weight;
using testing::Rows;

class GemmBits : public ::testing::TestWithParam<Isa> {};
INSTANTIATE_TEST_SUITE_P(All, GemmBits, ::testing::ValuesIn(supported_isas()),
                         [](const auto& param) { return std::string(to_string(param.param)); });

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

struct Case {
    DType a_type, b_type;
    int64_t k;
};

TEST_P(GemmBits, RowsHaveTheSameBitsWhateverMAndThreads) {
    Random random(2);
    const int64_t m = 70;
    const int64_t n = 200;
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
                ASSERT_TRUE(same_bits(whole, pieces))
                    << threads << " threads, " << step << " rows at a time";
            }
        }
    }
}

// Rows are shared out as well as columns where those are few for the threads: so many columns that
// one thread has all rows of a step in a tile.
TEST_P(GemmBits, RowsOfOneTileHaveTheSameBitsWhateverTheirNumber) {
    Random random(3);
    const int64_t m = 70;
    const int64_t n = 520;
    // Also so much of k that it is taken in parts where there are many rows.
    const Case cases[] = {{DType::kBF16, DType::kE4M3, 300},
                          {DType::kE4M3, DType::kE4M3, 300},
                          {DType::kI8, DType::kE4M3, 300},
                          {DType::kBF16, DType::kBF16, 300},
                          {DType::kI8, DType::kE4M3, 16400}};
    for (const auto& [a_type, b_type, k] : cases) {
        const Rows a = random_rows(random, a_type, m, k);
        const OwnedWeight b = random_weight(random, b_type, n, k, 8);
        OpContext context(GetParam(), 1);
        const std::vector<float> one = product_in_steps(context.exec, a.view, b.view, m, 1);
        for (const int64_t step :
             {int64_t{5}, int64_t{16}, int64_t{23}, int64_t{40}, int64_t{64}, m})
            ASSERT_TRUE(same_bits(one, product_in_steps(context.exec, a.view, b.view, m, step)))
                << step << " rows at a time";
    }
}

// A bf16 NaN of either sign and any payload.
bf16 any_nan(Random& random) {
    return {static_cast<uint16_t>(0x7f81 + random.below(0x7f) + 0x8000 * random.below(2))};
}

// Which of several NaNs a multiply-add passes on depends on the order of its operands.
TEST_P(GemmBits, SumsOfSeveralNansHaveTheSameBitsWhateverM) {
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
            EXPECT_TRUE(same_bits(whole, run(step))) << step << " rows at a time";
    }
}

// Columns side by side whose largest codes are close together or as far apart as can be, zeros and
// NaNs among them, and scales whose products are not normal numbers.
TEST_P(GemmBits, Int8SumsHaveTheSameBitsWhateverTheColumnsBesideThem) {
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
            ASSERT_TRUE(same_bits(whole, sums(step)))
                << step << " rows at a time, scales " << b_scale << " and " << a_scale;
    };
    for (const float b_scale : {0.37F, 1.1e-36F, 0x116c3p-149F, 3e37F, 0.0F})
        for (const float a_scale : {0.02F, 1.1e-36F, 1e-40F, 3e38F, 0.0F}) {
            expect_same(b_scale, a_scale, false);
            expect_same(b_scale, a_scale, true);
        }
}

}  // namespace
}  // namespace dsa::gemm
