#pragma once
// Requantisation of 128 e4m3 codes to int8 by their largest magnitude: value(code) * 127 / largest,
// rounded. e4m3 codes order like their magnitudes, so the largest one is one of 127 codes, and what
// is 64 codes or more below it is less than 1/254 of it and rounds to 0. For any compiler flags:
// everything is static.

#include <cstdint>
#include <limits>

namespace dsa::gemm::cpu {

struct Int8Tables {
    // [largest][largest - code], magnitudes. Nothing but zeros where the largest is 0 or NaN
    // (0x7f).
    alignas(64) uint8_t magnitude[128][64];
    // What 1 means then: value(largest) / 127; NaN for 0x7f.
    float unit[128];
};

static constexpr int64_t e4m3_in_subnormals(int64_t code) {  // magnitude as a multiple of 2^-9
    return code < 8 ? code : (8 + code % 8) << (code / 8 - 1);
}

static constexpr Int8Tables make_int8_tables() {
    Int8Tables t{};
    for (int64_t largest = 1; largest < 127; ++largest) {
        const int64_t top = e4m3_in_subnormals(largest);
        for (int64_t below = 0; below < 64 && below <= largest; ++below)
            t.magnitude[largest][below] = static_cast<uint8_t>(
                (2 * 127 * e4m3_in_subnormals(largest - below) + top) / (2 * top));
        t.unit[largest] = static_cast<float>(static_cast<double>(top) / 512.0 / 127.0);
    }
    t.unit[127] = std::numeric_limits<float>::quiet_NaN();
    return t;
}

static constexpr Int8Tables kInt8Tables = make_int8_tables();

// The magnitudes + base. With 128, where int8 values + 128 are unsigned, the opposite of 128 + x is
// 128 - x as well.
template <int kPlaces>
struct Int8Magnitudes {
    alignas(64) uint8_t magnitude[128][kPlaces];
};

// [largest][largest - code]
static constexpr Int8Magnitudes<64> make_int8_magnitudes(int base) {
    Int8Magnitudes<64> t{};
    for (int64_t largest = 0; largest < 128; ++largest)
        for (int64_t below = 0; below < 64; ++below)
            t.magnitude[largest][below] =
                static_cast<uint8_t>(base + kInt8Tables.magnitude[largest][below]);
    return t;
}

// [largest][code], for a lookup that takes all 128 codes at once.
static constexpr Int8Magnitudes<128> make_int8_magnitudes_by_code(int base) {
    Int8Magnitudes<128> t{};
    for (int64_t largest = 0; largest < 128; ++largest)
        for (int64_t code = 0; code < 128; ++code) {
            const int64_t below = largest - code;
            const bool in_table = below >= 0 && below < 64;
            t.magnitude[largest][code] =
                static_cast<uint8_t>(base + (in_table ? kInt8Tables.magnitude[largest][below] : 0));
        }
    return t;
}

template <int kBase>
static constexpr Int8Magnitudes<64> kInt8Magnitudes = make_int8_magnitudes(kBase);
template <int kBase>
static constexpr Int8Magnitudes<128> kInt8MagnitudesByCode = make_int8_magnitudes_by_code(kBase);

}  // namespace dsa::gemm::cpu
