#pragma once
// Upper limits of a machine with 512-bit vectors: the plainest loops that read or multiply.

#include <immintrin.h>

#include <cstdint>

#include "gemm/cpu/read_lines.h"

namespace dsa::gemm::cpu {

// Reads every line; n a multiple of 64. The result depends on all bytes.
static inline uint64_t read_lines(const uint8_t* p, int64_t n, int64_t ahead) {
    __m512i sum[4] = {};
    for_each_line(p, n, ahead, [&](const uint8_t* line, int i) {
        sum[i] = _mm512_add_epi64(sum[i], _mm512_loadu_si512(line));
    });
    alignas(64) uint64_t lanes[8];
    _mm512_store_si512(lanes, _mm512_add_epi64(_mm512_add_epi64(sum[0], sum[1]),
                                               _mm512_add_epi64(sum[2], sum[3])));
    uint64_t total = 0;
    for (const uint64_t lane : lanes) total += lane;
    return total;
}

// `rounds` x 24 independent step(acc, a, b); ops_a_step operations each.
template <class Vec, class Acc, class Step>
static inline double multiply_rounds(int64_t rounds, Vec a, Vec b, Acc zero, double ops_a_step,
                                     const Step& step) {
    Acc acc[24];
#pragma GCC unroll 24
    for (int i = 0; i < 24; ++i) {
        acc[i] = zero;
        asm volatile("" : "+v"(acc[i]));  // or the compiler would see 24 equal chains
    }
    for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 24
        for (int i = 0; i < 24; ++i) acc[i] = step(acc[i], a, b);
    }
#pragma GCC unroll 24
    for (int i = 0; i < 24; ++i) asm volatile("" ::"v"(acc[i]));
    return static_cast<double>(rounds) * 24.0 * ops_a_step;
}

#if defined(__AVX512VNNI__)
static inline double vnni_peak(int64_t rounds) {
    const __m512i one = _mm512_set1_epi8(1);
    return multiply_rounds(
        rounds, one, one, _mm512_setzero_si512(), 128.0,
        [](__m512i acc, __m512i a, __m512i b) { return _mm512_dpbusd_epi32(acc, a, b); });
}
#endif

}  // namespace dsa::gemm::cpu
