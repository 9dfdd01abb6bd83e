#pragma once
// How the limit of reading is measured, whatever the vectors. Everything is static inline: internal
// to the ISA file.

#include <cstdint>

namespace dsa::gemm::cpu {

// add(line, i) for each line of the n bytes (a multiple of 64) at p, i in 0 .. 3 in turn: four
// instructions read, because one alone is slower (prefetch_lines in columns.h). ahead: how far
// ahead to prefetch, 0 for not at all.
template <class Add>
__attribute__((always_inline)) static inline void for_each_line(const uint8_t* p, int64_t n,
                                                                int64_t ahead, const Add& add) {
    const auto line = [&](int64_t at, int i) {
        if (ahead > 0) __builtin_prefetch(p + at + ahead);
        add(p + at, i);
    };
    int64_t at = 0;
    for (; at + 256 <= n; at += 256)
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) line(at + 64 * i, i);
    for (; at < n; at += 64) line(at, 0);
}

}  // namespace dsa::gemm::cpu
