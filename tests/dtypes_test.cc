// Conversions of base/dtypes.h against references in double that share no code with them: e4m3 by
// search over the whole table of values, bf16 by rounding to the unit in the last place.

#include "base/dtypes.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>

namespace dsa {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr unsigned kLargestCode = 0x7eU;  // 448

// Value of a code without its sign bit, 0 .. kLargestCode.
double magnitude(unsigned code) {
    const int exponent = static_cast<int>(code >> 3);
    const int mantissa = static_cast<int>(code & 7U);
    return exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10);
}

// Nearest code, ties to the even one, saturating; x is not NaN.
unsigned nearest_e4m3(float x) {
    const unsigned sign = std::signbit(x) ? 0x80U : 0U;
    const double m = std::fabs(static_cast<double>(x));
    if (m >= magnitude(kLargestCode)) return sign | kLargestCode;
    unsigned best = 0;
    for (unsigned code = 1; code <= kLargestCode; ++code) {
        const double gain = std::fabs(m - magnitude(best)) - std::fabs(m - magnitude(code));
        if (gain > 0.0 || (gain == 0.0 && code % 2 == 0)) best = code;
    }
    return sign | best;
}

void expect_e4m3(float x) {
    const unsigned expected = nearest_e4m3(x);
    ASSERT_EQ(to_e4m3(x).bits, expected)
        << "x = " << std::hexfloat << x << ", nearest " << magnitude(expected & 0x7fU);
}

// Nearest bf16, ties to even, overflow to infinity; x is finite.
float nearest_bf16(float x) {
    if (x == 0.0F) return x;
    const int exponent = std::max(std::ilogb(x), -126);  // one grid for all subnormals
    const double ulp = std::ldexp(1.0, exponent - 7);
    const double rounded = std::nearbyint(static_cast<double>(x) / ulp) * ulp;
    if (std::fabs(rounded) >= std::ldexp(1.0, 128)) return std::copysign(kInf, x);
    return std::copysign(static_cast<float>(rounded), x);
}

void expect_bf16(float x) {
    const uint32_t expected = std::bit_cast<uint32_t>(nearest_bf16(x));
    ASSERT_EQ(static_cast<uint32_t>(to_bf16(x).bits) << 16, expected) << std::hexfloat << x;
}

TEST(E4m3, ValueOfEveryCode) {
    for (unsigned code = 0; code < 256; ++code) {
        const float value = to_float(e4m3{static_cast<uint8_t>(code)});
        if ((code & 0x7fU) == 0x7fU) {
            EXPECT_TRUE(std::isnan(value)) << code;
            continue;
        }
        EXPECT_EQ(static_cast<double>(std::fabs(value)), magnitude(code & 0x7fU)) << code;
        EXPECT_EQ(std::signbit(value), code >= 0x80U) << code;
    }
    EXPECT_EQ(to_float(e4m3{0x01}), std::ldexp(1.0F, -9));
    EXPECT_EQ(to_float(e4m3{0x08}), std::ldexp(1.0F, -6));
    EXPECT_EQ(to_float(e4m3{0x38}), 1.0F);
    EXPECT_EQ(to_float(e4m3{0xfe}), -kE4m3Max);
}

TEST(E4m3, EveryCodeRoundTrips) {
    for (unsigned code = 0; code < 256; ++code) {
        const e4m3 back = to_e4m3(to_float(e4m3{static_cast<uint8_t>(code)}));
        if ((code & 0x7fU) == 0x7fU) {
            EXPECT_EQ(back.bits & 0x7fU, 0x7fU) << code;
        } else {
            EXPECT_EQ(back.bits, code);
        }
    }
}

TEST(E4m3, EveryTieAndItsNeighbours) {
    for (unsigned code = 0; code < kLargestCode; ++code) {
        const double middle = (magnitude(code) + magnitude(code + 1)) / 2.0;
        const auto tie = static_cast<float>(middle);
        ASSERT_EQ(static_cast<double>(tie), middle);
        const unsigned even = code % 2 == 0 ? code : code + 1;
        const float below = std::nextafterf(tie, 0.0F);
        const float above = std::nextafterf(tie, kInf);
        EXPECT_EQ(to_e4m3(tie).bits, even) << tie;
        EXPECT_EQ(to_e4m3(below).bits, code) << std::hexfloat << below;
        EXPECT_EQ(to_e4m3(above).bits, code + 1) << std::hexfloat << above;
        EXPECT_EQ(to_e4m3(-tie).bits, even | 0x80U) << -tie;
        EXPECT_EQ(to_e4m3(-below).bits, code | 0x80U) << std::hexfloat << -below;
        EXPECT_EQ(to_e4m3(-above).bits, (code + 1) | 0x80U) << std::hexfloat << -above;
    }
}

TEST(E4m3, NeighboursOfEveryValue) {
    for (unsigned code = 0; code <= kLargestCode; ++code) {
        const auto value = static_cast<float>(magnitude(code));
        for (const float x : {std::nextafterf(value, -kInf), std::nextafterf(value, kInf)}) {
            expect_e4m3(x);
            expect_e4m3(-x);
        }
    }
}

TEST(E4m3, SaturatesAndKeepsNaN) {
    // 464 is the tie between 448 and the 480 that the format lacks.
    for (const float x : {448.0F, std::nextafterf(448.0F, kInf), 463.0F, 464.0F, 465.0F, 480.0F,
                          512.0F, 1e30F, std::numeric_limits<float>::max(), kInf}) {
        EXPECT_EQ(to_e4m3(x).bits, 0x7eU) << x;
        EXPECT_EQ(to_e4m3(-x).bits, 0xfeU) << x;
    }
    EXPECT_EQ(to_e4m3(0.0F).bits, 0x00U);
    EXPECT_EQ(to_e4m3(-0.0F).bits, 0x80U);
    EXPECT_EQ(to_e4m3(std::numeric_limits<float>::denorm_min()).bits, 0x00U);
    EXPECT_EQ(to_e4m3(-std::numeric_limits<float>::min()).bits, 0x80U);
    for (const uint32_t nan : {0x7f800001U, 0x7fc00000U, 0x7fffffffU}) {
        EXPECT_EQ(to_e4m3(std::bit_cast<float>(nan)).bits, 0x7fU);
        EXPECT_EQ(to_e4m3(std::bit_cast<float>(nan | 0x80000000U)).bits, 0xffU);
    }
    EXPECT_TRUE(std::isnan(to_float(to_e4m3(kNaN))));
}

// Every sign, exponent and upper mantissa, each with lower halves around its rounding bit: e4m3
// keeps at most 3 of these 7 bits, so the rest decides as the sticky bits of all 2^32 floats do.
TEST(E4m3, NearestForAllUpperHalves) {
    for (uint32_t high = 0; high < 0x10000U; ++high) {
        if ((high & 0x7f80U) == 0x7f80U) continue;  // infinities and NaN: above
        for (const uint32_t low : {0x0000U, 0x0001U, 0x7fffU, 0x8000U, 0xffffU})
            ASSERT_NO_FATAL_FAILURE(expect_e4m3(std::bit_cast<float>((high << 16) | low)));
    }
}

TEST(Bf16, EveryCodeRoundTrips) {
    for (uint32_t code = 0; code < 0x10000U; ++code) {
        const float value = to_float(bf16{static_cast<uint16_t>(code)});
        ASSERT_EQ(std::bit_cast<uint32_t>(value), code << 16);
        const bool is_nan = (code & 0x7fffU) > 0x7f80U;
        ASSERT_EQ(std::isnan(value), is_nan) << code;
        ASSERT_EQ(to_bf16(value).bits, is_nan ? code | 0x40U : code);
    }
}

TEST(Bf16, TiesGoToEven) {
    for (uint32_t code = 0; code < 0x7f80U; ++code) {
        const uint32_t tie = (code << 16) | 0x8000U;
        const uint32_t even = code + (code & 1U);
        for (const uint32_t sign : {0U, 0x8000U}) {
            const uint32_t x = tie | (sign << 16);
            ASSERT_EQ(to_bf16(std::bit_cast<float>(x)).bits, even | sign) << std::hex << x;
            ASSERT_EQ(to_bf16(std::bit_cast<float>(x - 1)).bits, code | sign) << std::hex << x;
            ASSERT_EQ(to_bf16(std::bit_cast<float>(x + 1)).bits, (code + 1) | sign)
                << std::hex << x;
        }
    }
}

TEST(Bf16, OverflowsToInfinity) {
    const float largest = to_float(bf16{0x7f7f});
    const auto limit = std::bit_cast<float>(0x7f7f8000U);  // the tie between it and 2^128
    EXPECT_EQ(round_bf16(std::nextafterf(limit, 0.0F)), largest);
    EXPECT_EQ(round_bf16(limit), kInf);
    EXPECT_EQ(round_bf16(std::numeric_limits<float>::max()), kInf);
    EXPECT_EQ(round_bf16(std::numeric_limits<float>::lowest()), -kInf);
    EXPECT_EQ(round_bf16(kInf), kInf);
    EXPECT_EQ(round_bf16(-kInf), -kInf);
}

TEST(Bf16, NaNIsQuieted) {
    // A payload in the lower half only must not become an infinity, nor a carry a zero.
    for (const uint32_t nan : {0x7f800001U, 0x7f80ffffU, 0x7fbfffffU, 0x7fc00000U, 0x7fffffffU}) {
        for (const uint32_t sign : {0U, 0x80000000U}) {
            const uint16_t bits = to_bf16(std::bit_cast<float>(nan | sign)).bits;
            EXPECT_GT(bits & 0x7fffU, 0x7f80U) << std::hex << nan;
            EXPECT_EQ(bits & 0x40U, 0x40U) << std::hex << nan;
            EXPECT_EQ(bits & 0x8000U, sign >> 16) << std::hex << nan;
        }
    }
}

TEST(Bf16, NearestOverASweep) {
    std::mt19937 random(1);
    for (int i = 0; i < 2'000'000; ++i) {
        const auto x = std::bit_cast<float>(static_cast<uint32_t>(random()));
        if (!std::isfinite(x)) continue;
        ASSERT_NO_FATAL_FAILURE(expect_bf16(x));
    }
    for (uint32_t u = 0; u < 0x20000U; u += 3) {  // around the subnormal bf16 values
        ASSERT_NO_FATAL_FAILURE(expect_bf16(std::bit_cast<float>(u)));
        ASSERT_NO_FATAL_FAILURE(expect_bf16(std::bit_cast<float>(0x00800000U - u)));
        ASSERT_NO_FATAL_FAILURE(expect_bf16(std::bit_cast<float>(0x80800000U + u)));
    }
}

TEST(DType, NamesAndSizes) {
    const struct {
        DType dtype;
        const char* name;
        int64_t size;
    } expected[] = {{DType::kF32, "F32", 4},      {DType::kBF16, "BF16", 2},
                    {DType::kE4M3, "F8_E4M3", 1}, {DType::kI64, "I64", 8},
                    {DType::kI32, "I32", 4},      {DType::kI16, "I16", 2},
                    {DType::kU8, "U8", 1}};
    for (const auto& e : expected) {
        EXPECT_EQ(to_string(e.dtype), std::string(e.name));
        EXPECT_EQ(size_of(e.dtype), e.size) << e.name;
    }
}

}  // namespace
}  // namespace dsa
