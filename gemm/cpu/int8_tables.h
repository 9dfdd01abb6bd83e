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

// The same by [largest][code], for a lookup that takes all 128 codes at once, plus `base`.
struct Int8TablesByCode {
    alignas(64) uint8_t magnitude[128][128];
};

static constexpr Int8TablesByCode make_int8_tables_by_code(uint8_t base) {
    Int8TablesByCode t{};
    for (auto& codes : t.magnitude)
        for (uint8_t& x : codes) x = base;
    for (int64_t largest = 1; largest < 127; ++largest)
        for (int64_t below = 0; below < 64 && below <= largest; ++below)
            t.magnitude[largest][largest - below] =
                static_cast<uint8_t>(base + kInt8Tables.magnitude[largest][below]);
    return t;
}

static constexpr Int8TablesByCode kInt8TablesByCode = make_int8_tables_by_code(0);
// For unsigned values + 128; the opposite of 128 + x is 128 - x there as well.
static constexpr Int8TablesByCode kInt8TablesFrom128 = make_int8_tables_by_code(128);

}  // namespace dsa::gemm::cpu
