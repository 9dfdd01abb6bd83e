// base/rope.h: YaRN frequencies against values worked out by hand, rotations against complex
// numbers.

#include "base/rope.h"

#include <gtest/gtest.h>

#include <cmath>
#include <complex>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

namespace dsa {
namespace {

constexpr int kDim = 64;
constexpr double kTheta = 10000.0;
constexpr YarnParams kV32{40.0, 32.0, 1.0, 1.0, 4096.0};
constexpr YarnParams kMini{8.0, 32.0, 1.0, 1.0, 2048.0};

double plain_frequency(int i) {
    return std::pow(kTheta, -2.0 * i / kDim);
}

// Up to `low` unchanged, from `high` on divided by the factor, in between strictly between the two.
void expect_ramp(const YarnParams& yarn, int low, int high) {
    const std::vector<float> g = rope_frequencies(kDim, kTheta, yarn);
    ASSERT_EQ(g.size(), static_cast<size_t>(kDim / 2));
    for (int i = 0; i < kDim / 2; ++i) {
        const double f = plain_frequency(i);
        const double value = g[static_cast<size_t>(i)];
        if (i <= low) {
            EXPECT_NEAR(value, f, 3e-7 * f) << i;
        } else if (i >= high) {
            EXPECT_NEAR(value, f / yarn.factor, 3e-7 * f / yarn.factor) << i;
        } else {
            const double ramp = static_cast<double>(i - low) / (high - low);
            EXPECT_NEAR(value, f * (1.0 - ramp) + f / yarn.factor * ramp, 3e-7 * f) << i;
            EXPECT_LT(value, 0.999 * f) << i;
            EXPECT_GT(value, 1.001 * f / yarn.factor) << i;
        }
    }
}

TEST(RopeFrequencies, V32SpotValues) {
    const std::vector<float> g = rope_frequencies(kDim, kTheta, kV32);
    const std::pair<size_t, double> expected[] = {
        {11, 3.900692657e-2}, {15, 8.334508951e-3}, {16, 5.5e-3},        {20, 7.905694150e-4},
        {22, 1.778279410e-4}, {23, 3.333803580e-5}, {31, 3.333803580e-6}};
    for (const auto& [i, value] : expected) EXPECT_NEAR(g.at(i), value, 2e-7 * value) << i;
}

TEST(RopeFrequencies, Ramp) {
    expect_ramp(kV32, 10, 23);
    expect_ramp(kMini, 8, 21);
}

TEST(RopeFrequencies, WithoutScaling) {
    const std::vector<float> g = rope_frequencies(kDim, kTheta, YarnParams{});
    for (int i = 0; i < kDim / 2; ++i)
        EXPECT_NEAR(g[static_cast<size_t>(i)], plain_frequency(i), 3e-7 * plain_frequency(i)) << i;
    EXPECT_EQ(yarn_softmax_factor(YarnParams{}), 1.0);
}

TEST(RopeFrequencies, RampIsClampedToThePairs) {
    // A context shorter than 2 pi beta_fast: every pair turns less often than beta_fast, low is 0.
    const YarnParams yarn{4.0, 32.0, 1.0, 1.0, 128.0};
    const std::vector<float> g = rope_frequencies(kDim, kTheta, yarn);
    EXPECT_DOUBLE_EQ(g[0], 1.0);
    EXPECT_LT(g[1], plain_frequency(1));
    EXPECT_FLOAT_EQ(g[31], static_cast<float>(plain_frequency(31) / 4.0));
    for (const double value : g) EXPECT_TRUE(std::isfinite(value) && value > 0.0);
    // low == high: a step, not a division by zero.
    const YarnParams step{4.0, 1.0, 1.0, 1.0, 2.0 * 3.14159265358979};
    for (const float value : rope_frequencies(kDim, kTheta, step))
        EXPECT_TRUE(std::isfinite(value) && value > 0.0);
}

TEST(YarnSoftmaxFactor, Sigma) {
    const double scale = 1.0 / std::sqrt(192.0);
    EXPECT_NEAR(scale * yarn_softmax_factor(kV32), 0.1352337789, 5e-11);
    EXPECT_NEAR(scale * yarn_softmax_factor(kMini), 0.1053035709, 5e-11);
    YarnParams none = kV32;
    none.mscale_all_dim = 0.0;
    EXPECT_EQ(yarn_softmax_factor(none), 1.0);
}

std::vector<float> test_vector() {
    std::vector<float> x(kDim);
    for (size_t i = 0; i < x.size(); ++i)
        x[i] = std::sin(1.7F * static_cast<float>(i) + 0.3F) * (i % 5 == 0 ? 20.0F : 1.0F);
    return x;
}

// Elements of pair i.
std::pair<size_t, size_t> pair_of(RopePairing pairing, size_t i) {
    if (pairing == RopePairing::kInterleaved) return {2 * i, 2 * i + 1};
    return {i, i + kDim / 2};
}

class RopePairings : public testing::TestWithParam<RopePairing> {};

TEST_P(RopePairings, EqualsComplexRotation) {
    const int64_t positions = 10'000;
    const RopeTable table(kDim, kTheta, kV32, positions);
    EXPECT_EQ(table.dim(), kDim);
    const std::vector<float> g = rope_frequencies(kDim, kTheta, kV32);
    const std::vector<float> x = test_vector();
    for (const int64_t t : {int64_t{0}, int64_t{1}, int64_t{7}, int64_t{4095}, positions - 1}) {
        std::vector<float> rotated = x;
        apply_rope(table, GetParam(), t, rotated.data());
        if (t == 0) {
            EXPECT_EQ(rotated, x);
        }
        for (size_t i = 0; i < kDim / 2; ++i) {
            const auto [a, b] = pair_of(GetParam(), i);
            const std::complex<double> z(x[a], x[b]);
            const double angle = static_cast<double>(t) * g[i];
            const std::complex<double> expected = z * std::polar(1.0, angle);
            // The angle itself is a product in fp32: g and the product are rounded to 2^-24 each.
            const double bound = std::abs(z) * (angle * std::ldexp(1.0, -23) + 1e-6);
            EXPECT_NEAR(rotated[a], expected.real(), bound) << "position " << t << ", pair " << i;
            EXPECT_NEAR(rotated[b], expected.imag(), bound) << "position " << t << ", pair " << i;
        }
    }
}

TEST_P(RopePairings, KeepsTheNormOfEveryPair) {
    const RopeTable table(kDim, kTheta, kMini, 3000);
    const std::vector<float> x = test_vector();
    for (int64_t t = 0; t < 3000; t += 37) {
        std::vector<float> rotated = x;
        apply_rope(table, GetParam(), t, rotated.data());
        for (size_t i = 0; i < kDim / 2; ++i) {
            const auto [a, b] = pair_of(GetParam(), i);
            const double norm = std::hypot(x[a], x[b]);
            EXPECT_NEAR(std::hypot(rotated[a], rotated[b]), norm, 1e-6 * norm) << t << ", " << i;
        }
    }
}

// What attention uses: the product of two rotated vectors depends on their distance only.
TEST_P(RopePairings, ProductDependsOnDistance) {
    const RopeTable table(kDim, kTheta, kMini, 2000);
    const std::vector<float> x = test_vector();
    const auto product = [&](int64_t s, int64_t t) {
        std::vector<float> q = x;
        std::vector<float> k(x.rbegin(), x.rend());
        apply_rope(table, GetParam(), s, q.data());
        apply_rope(table, GetParam(), t, k.data());
        double sum = 0.0;
        for (size_t i = 0; i < q.size(); ++i)
            sum += static_cast<double>(q[i]) * static_cast<double>(k[i]);
        return sum;
    };
    EXPECT_NEAR(product(1900, 1850), product(50, 0), 0.05);
    EXPECT_GT(std::fabs(product(1900, 1850) - product(60, 0)), 1.0);
}

INSTANTIATE_TEST_SUITE_P(Both, RopePairings,
                         testing::Values(RopePairing::kInterleaved, RopePairing::kHalfSplit));

TEST(RopePairing, WhichElementsMove) {
    const RopeTable table(kDim, kTheta, YarnParams{}, 2);
    const auto moved = [&](RopePairing pairing) {
        std::vector<float> x(kDim, 0.0F);
        x[0] = 1.0F;
        apply_rope(table, pairing, 1, x.data());
        return x;
    };
    const std::vector<float> interleaved = moved(RopePairing::kInterleaved);
    const std::vector<float> half_split = moved(RopePairing::kHalfSplit);
    EXPECT_NEAR(interleaved[0], std::cos(1.0), 1e-7);
    EXPECT_NEAR(interleaved[1], std::sin(1.0), 1e-7);
    EXPECT_EQ(interleaved[32], 0.0F);
    EXPECT_NEAR(half_split[0], std::cos(1.0), 1e-7);
    EXPECT_NEAR(half_split[32], std::sin(1.0), 1e-7);
    EXPECT_EQ(half_split[1], 0.0F);
}

}  // namespace
}  // namespace dsa
