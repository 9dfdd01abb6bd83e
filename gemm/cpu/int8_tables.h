#pragma once
// Requantisation of 128 e4m3 codes to int8 by their largest magnitude, to multiples of a power of
// two: 64 is the largest power of two that is not above them all. What is 1/8 of that or more has
// at most three bits below its first and stays exact; what is 64 codes or more below the largest is
// less than half a unit and rounds to 0. e4m3 codes order like their magnitudes. For any compiler
// flags: everything is static.

#include <cstdint>
#include <limits>

namespace dsa::gemm::cpu {

struct Int8Tables {
    // [largest][largest - code], magnitudes. Nothing but zeros where the largest is 0 or NaN
    // (0x7f).
    alignas(64) uint8_t magnitude[128][64];
    // What 1 means then: a power of two; 0 where the largest is 0, NaN for 0x7f.
    float unit[128];
};

static constexpr int64_t e4m3_in_subnormals(int64_t code) {  // magnitude as a multiple of 2^-9
    return code < 8 ? code : (8 + code % 8) << (code / 8 - 1);
}

static constexpr int64_t divided(int64_t x, int64_t bits) {  // x / 2^bits, ties to even
    const int64_t quotient = x >> bits;
    const int64_t twice_rest = 2 * (x - (quotient << bits));
    const int64_t one = int64_t{1} << bits;
    return quotient + (twice_rest > one || (twice_rest == one && quotient % 2 == 1) ? 1 : 0);
}

static constexpr Int8Tables make_int8_tables() {
    Int8Tables t{};
    for (int64_t largest = 1; largest < 127; ++largest) {
        // Of the largest, above that of 8 subnormals: 8 to 15 of them, 64 to 120 units.
        const int64_t binade = largest < 16 ? 0 : largest / 8 - 1;
        for (int64_t below = 0; below < 64 && below <= largest; ++below)
            t.magnitude[largest][below] =
                static_cast<uint8_t>(divided(8 * e4m3_in_subnormals(largest - below), binade));
        t.unit[largest] = static_cast<float>(int64_t{1} << binade) / (8.0F * 512.0F);
    }
    t.unit[127] = std::numeric_limits<float>::quiet_NaN();
    return t;
}

static constexpr Int8Tables kInt8Tables = make_int8_tables();

// For lookups that take 16 entries by the low four bits of an index, and give 0 where its top bit
// is set. Entry at = 63 + code - largest (below 0: nothing but 0) is the magnitude xor that of the
// entry 16 before, so the four lookups of 16 entries with at, at - 16, at - 32 and at - 48, xored,
// are the magnitude: those of parts behind `at` are 0, those before it cancel.
struct Int8XorTables {
    alignas(64) uint8_t magnitude[128][64];  // [largest][at]
    uint32_t offset[128];                    // [largest], in each byte what makes `at` of a code
};

static constexpr Int8XorTables make_int8_xor_tables() {
    Int8XorTables t{};
    for (int64_t largest = 0; largest < 128; ++largest) {
        t.offset[largest] = static_cast<uint32_t>((63 - largest) & 0xff) * 0x01010101U;
        for (int64_t at = 0; at < 64; ++at) {
            t.magnitude[largest][at] = kInt8Tables.magnitude[largest][63 - at];
            if (at >= 16) t.magnitude[largest][at] ^= kInt8Tables.magnitude[largest][63 - at + 16];
        }
    }
    return t;
}

static constexpr Int8XorTables kInt8XorTables = make_int8_xor_tables();

// For lookups that take all 128 codes at once: the magnitudes + base. With 128, where int8 values +
// 128 are unsigned, the opposite of 128 + x is 128 - x as well.
struct Int8MagnitudesByCode {
    alignas(64) uint8_t magnitude[128][128];  // [largest][code]
};

static constexpr Int8MagnitudesByCode make_int8_magnitudes_by_code(int base) {
    Int8MagnitudesByCode t{};
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
static constexpr Int8MagnitudesByCode kInt8MagnitudesByCode = make_int8_magnitudes_by_code(kBase);

}  // namespace dsa::gemm::cpu
