#pragma once
// The selected records of a split as widened keys, for any vector ISA. Everything is static inline:
// internal to the ISA file.

#include <immintrin.h>

#include <cstdint>

#include "attention/cpu/kernels.h"

namespace dsa::attention::cpu {

// Keys that are widened and multiplied with all queries before the next ones, while they are in the
// L1 cache.
static constexpr int64_t kKeyGroup = 16;

static inline const uint8_t* record_of(const SplitArgs& a, int64_t j) {
    const int64_t s = a.indices[j];
    return a.pages[s / kTokensPerPage] + a.page_offset + s % kTokensPerPage * kRecord;
}

// Widens the selected records first .. first + kKeyGroup - 1 to bf16; rows beyond the last are
// zero.
template <void (*kWiden)(const uint8_t* record, uint16_t* key)>
static inline void gather(const SplitArgs& a, int64_t first, uint16_t* keys) {
    constexpr int64_t kAhead = 4;
    const int64_t end = first + kKeyGroup < a.count ? first + kKeyGroup : a.count;
    for (int64_t j = first; j < end; ++j) {
        if (j + kAhead < a.count) {
            const uint8_t* next = record_of(a, j + kAhead);
            for (int64_t line = 0; line < kRecord; line += 64)
                _mm_prefetch(next + line, _MM_HINT_T0);
        }
        kWiden(record_of(a, j), keys + j * kKey);
    }
    for (int64_t i = end * kKey; i < (first + kKeyGroup) * kKey; ++i) keys[i] = 0;
}

}  // namespace dsa::attention::cpu
