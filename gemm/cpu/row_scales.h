#pragma once
// Scales of quantised rows from the largest magnitude of a block. For any compiler flags:
// everything is static.

#include <cstdint>
#include <cstring>
#include <limits>

namespace dsa::gemm::cpu {

// e4m3, as dsa::gemm::block_scale: largest / 448, or the next power of two that is not smaller.
static inline float e4m3_scale(float largest, bool ue8m0) {
    if (!ue8m0) return largest / 448.0F;
    const float scale = largest * (1.0F / 448.0F);
    uint32_t bits = 0;
    std::memcpy(&bits, &scale, sizeof(bits));
    bits = (bits + 0x7fffffU) & 0xff800000U;  // one exponent up unless the mantissa is 0
    float power = 0.0F;
    std::memcpy(&power, &bits, sizeof(power));
    return power;
}

// int8.
// q = round(x * inverse), x ~ q * scale.
struct Int8Scale {
    float scale;
    float inverse;
};

// From the bits of the largest fp32 magnitude of a block; an infinity or NaN makes the row NaN.
static inline Int8Scale int8_scale(int32_t largest_bits) {
    if (largest_bits >= 0x7f800000) return {std::numeric_limits<float>::quiet_NaN(), 0.0F};
    float largest = 0.0F;
    std::memcpy(&largest, &largest_bits, sizeof(largest));
    // Below it 127 / largest is not finite; nothing that small matters.
    if (largest < 1e-36F) return {0.0F, 0.0F};
    return {largest / 127.0F, 127.0F / largest};
}

}  // namespace dsa::gemm::cpu
