#pragma once
// Requantisation of e4m3 codes with AVX2 (int8_tables.h).

#include <immintrin.h>

#include <cstdint>

#include "base/avx2.h"
#include "gemm/cpu/int8_tables.h"
#include "gemm/cpu/kernels.h"

namespace dsa::gemm::cpu {
namespace {

// 128 codes of a column, zeros behind the first `valid`.
__attribute__((always_inline)) inline void load_codes(const uint8_t* b, int64_t valid,
                                                      __m256i* codes) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) codes[i] = simd256::load_bytes(b + 32 * i, valid - 32 * i);
}

// Largest magnitude codes of 128, in each place of 32.
__attribute__((always_inline)) inline __m256i largest_of_32(const __m256i* codes) {
    const __m256i magnitude = _mm256_set1_epi8(0x7f);
    return _mm256_max_epu8(_mm256_max_epu8(_mm256_and_si256(codes[0], magnitude),
                                           _mm256_and_si256(codes[1], magnitude)),
                           _mm256_max_epu8(_mm256_and_si256(codes[2], magnitude),
                                           _mm256_and_si256(codes[3], magnitude)));
}

// Largest magnitude code of 128.
__attribute__((always_inline)) inline int32_t largest(const __m256i* codes) {
    const __m256i v = largest_of_32(codes);
    __m128i x = _mm_max_epu8(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    x = _mm_max_epu8(x, _mm_srli_epi16(x, 8));
    // The least of 16-bit words is one instruction.
    const __m128i inverse = _mm_andnot_si128(x, _mm_set1_epi16(0xff));
    return 0xff - (_mm_cvtsi128_si32(_mm_minpos_epu16(inverse)) & 0xff);
}

// Largest magnitude codes of 8 times 128, a dword each, given largest_of_32() of each: the vectors
// are transposed on the way, and 8 results come from one chain.
__attribute__((always_inline)) inline __m256i largest_of_8(const __m256i* v) {
    __m256i half[4];  // of j and j + 4
    for (int j = 0; j < 4; ++j)
        half[j] = _mm256_max_epu8(_mm256_permute2x128_si256(v[j], v[j + 4], 0x20),
                                  _mm256_permute2x128_si256(v[j], v[j + 4], 0x31));
    __m256i quarter[2];
    for (int j = 0; j < 2; ++j)
        quarter[j] = _mm256_max_epu8(_mm256_unpacklo_epi64(half[j], half[j + 2]),
                                     _mm256_unpackhi_epi64(half[j], half[j + 2]));
    // Dwords of 0, 1, 2, 3 of a lane: 0 and 2 lie in quarter[0], 1 and 3 in quarter[1].
    const __m256i even = _mm256_shuffle_epi32(quarter[0], 0xd8);
    const __m256i odd = _mm256_shuffle_epi32(quarter[1], 0xd8);
    __m256i x = _mm256_max_epu8(_mm256_unpacklo_epi32(even, odd), _mm256_unpackhi_epi32(even, odd));
    x = _mm256_max_epu8(x, _mm256_srli_epi32(x, 16));
    x = _mm256_max_epu8(x, _mm256_srli_epi32(x, 8));
    return _mm256_and_si256(x, _mm256_set1_epi32(0x7f));
}

// Magnitudes of codes whose largest magnitude code is `largest`.
class Int8Lookup {
  public:
    explicit Int8Lookup(int32_t largest)
        : table_(kInt8XorTables.magnitude[largest]),
          offset_(_mm256_set1_epi32(static_cast<int>(kInt8XorTables.offset[largest]))) {}

    __m256i magnitudes(__m256i codes) const {
        const __m256i at =
            _mm256_add_epi8(offset_, _mm256_and_si256(codes, _mm256_set1_epi8(0x7f)));
        const __m256i q = _mm256_xor_si256(part<0>(at), part<1>(at));
        return _mm256_xor_si256(_mm256_xor_si256(q, part<2>(at)), part<3>(at));
    }

  private:
    template <int kPart>
    __m256i part(__m256i at) const {
        const auto* entries = reinterpret_cast<const __m128i*>(table_) + kPart;
        return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_load_si128(entries)),
                                   _mm256_sub_epi8(at, _mm256_set1_epi8(16 * kPart)));
    }

    const uint8_t* table_;
    __m256i offset_;
};

}  // namespace
}  // namespace dsa::gemm::cpu
