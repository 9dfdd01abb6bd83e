#pragma once
// Storage types of the engine and their exact conversions.
//   e4m3: 1 sign, 4 exponent (bias 7), 3 mantissa bits; no infinity, 0x7f and 0xff are NaN, largest
//         finite value 448, smallest subnormal 2^-9 (OCP 8-bit floating point, E4M3).
//   bf16: the upper half of an IEEE fp32.
// All conversions to a narrower type round to nearest, ties to even.

#include <array>
#include <bit>
#include <cstdint>
#include <cstring>

namespace dsa {

struct e4m3 {
    uint8_t bits = 0;
};
struct bf16 {
    uint16_t bits = 0;
};
static_assert(sizeof(e4m3) == 1 && sizeof(bf16) == 2);

inline constexpr float kE4m3Max = 448.0F;

// Value of every code; index with e4m3::bits.
extern const std::array<float, 256> kE4m3ToFloat;

inline float to_float(e4m3 x) {
    return kE4m3ToFloat[x.bits];
}

inline float to_float(bf16 x) {
    return std::bit_cast<float>(static_cast<uint32_t>(x.bits) << 16);
}

inline bf16 to_bf16(float x) {
    uint32_t u = std::bit_cast<uint32_t>(x);
    if ((u & 0x7fffffffU) > 0x7f800000U) return {static_cast<uint16_t>((u >> 16) | 0x40U)};  // NaN
    u += 0x7fffU + ((u >> 16) & 1U);
    return {static_cast<uint16_t>(u >> 16)};
}

// Rounds to the bf16 grid.
inline float round_bf16(float x) {
    return to_float(to_bf16(x));
}

// Saturating: magnitudes above 448 and infinities become +-448; NaN stays NaN.
inline e4m3 to_e4m3(float x) {
    const uint32_t u = std::bit_cast<uint32_t>(x);
    const auto sign = static_cast<uint8_t>((u >> 24) & 0x80U);
    uint32_t mag = u & 0x7fffffffU;
    if (mag > 0x7f800000U) return {static_cast<uint8_t>(sign | 0x7fU)};
    if (mag >= 0x43e00000U) return {static_cast<uint8_t>(sign | 0x7eU)};  // >= 448
    if (mag < 0x3c800000U) {  // below 2^-6: the subnormal grid of 2^-9, rounded by the adder
        const float grid = std::bit_cast<float>(mag) + 16384.0F;  // ulp(2^14) = 2^-9
        return {static_cast<uint8_t>(sign | (std::bit_cast<uint32_t>(grid) & 0xffU))};
    }
    mag += 0x7ffffU + ((mag >> 20) & 1U);  // round the 23-bit mantissa to 3 bits
    mag -= 120U << 23;                     // exponent bias 127 -> 7
    return {static_cast<uint8_t>(sign | (mag >> 20))};
}

enum class DType : uint8_t { kF32, kBF16, kE4M3, kI64, kI32, kI16, kU8, kI8 };

// Name as in a safetensors header: "F32", "BF16", "F8_E4M3", ...
const char* to_string(DType dtype);
int64_t size_of(DType dtype);

}  // namespace dsa
