#include "base/dtypes.h"

#include <limits>
#include <utility>

namespace dsa {
namespace {

constexpr float e4m3_value(unsigned code) {
    const unsigned exponent = (code >> 3) & 15U;
    const unsigned mantissa = code & 7U;
    if ((code & 0x7fU) == 0x7fU) return std::numeric_limits<float>::quiet_NaN();
    float value = exponent == 0 ? static_cast<float>(mantissa) : static_cast<float>(8U + mantissa);
    int shift = static_cast<int>(exponent == 0 ? 1 : exponent) - 10;  // value * 2^shift
    for (; shift > 0; --shift) value *= 2.0F;
    for (; shift < 0; ++shift) value *= 0.5F;
    return (code & 0x80U) != 0 ? -value : value;
}

template <size_t... I>
constexpr std::array<float, sizeof...(I)> e4m3_values(std::index_sequence<I...>) {
    return {e4m3_value(I)...};
}

}  // namespace

constinit const std::array<float, 256> kE4m3ToFloat = e4m3_values(std::make_index_sequence<256>{});

const char* to_string(DType dtype) {
    switch (dtype) {
        case DType::kF32:
            return "F32";
        case DType::kBF16:
            return "BF16";
        case DType::kE4M3:
            return "F8_E4M3";
        case DType::kI64:
            return "I64";
        case DType::kI32:
            return "I32";
        case DType::kI16:
            return "I16";
        case DType::kU8:
            return "U8";
        case DType::kI8:
            return "I8";
    }
    return "?";
}

int64_t size_of(DType dtype) {
    switch (dtype) {
        case DType::kI64:
            return 8;
        case DType::kF32:
        case DType::kI32:
            return 4;
        case DType::kBF16:
        case DType::kI16:
            return 2;
        case DType::kE4M3:
        case DType::kU8:
        case DType::kI8:
            return 1;
    }
    return 0;
}

}  // namespace dsa
