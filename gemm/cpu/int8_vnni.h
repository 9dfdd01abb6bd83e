#pragma once
// V of int8_tile.h for AVX-512 VNNI. Base gives lookup(table, index): bytes of a table of 64 by the
// low 6 bits. Rows of A are stored as value + 128, unsigned; what that adds is in `start`.

#include <immintrin.h>

#include <cstdint>

#include "base/avx512.h"
#include "gemm/cpu/int8_tables.h"
#include "gemm/cpu/int8_tile.h"
#include "gemm/cpu/lanes512.h"

namespace dsa::gemm::cpu {
namespace {

template <class Base>
struct Int8Vnni : Lanes512 {
    using Vec = __m512i;
    // The type that the instruction has: g++ 12 keeps an array of __m512i in memory.
    typedef int IntSum __attribute__((vector_size(64)));
    using Element = uint8_t;
    static constexpr int kStepK = 4;
    static constexpr int kRows = 12;
    static constexpr bool kHasOneRow = true;

    static inline Vec load(const uint8_t* p) { return _mm512_load_si512(p); }
    static inline Vec broadcast(const uint8_t* p) {
        int32_t four = 0;
        __builtin_memcpy(&four, p, 4);
        return _mm512_set1_epi32(four);
    }
    static inline IntSum load_int(const int32_t* p) { return IntSum(_mm512_load_si512(p)); }
    static inline __m512 to_float(IntSum x) { return _mm512_cvtepi32_ps(__m512i(x)); }
    static inline IntSum dot(IntSum acc, Vec a, Vec b) {
        return IntSum(_mm512_dpbusd_epi32(__m512i(acc), a, b));
    }

    static inline void pack_row(const int8_t* a, int64_t valid, uint8_t* out) {
        for (int64_t i = 0; i < kBlockK; i += 64) {
            const __mmask64 mask = simd::mask_64(valid > i ? valid - i : 0);
            _mm512_storeu_si512(out + i, _mm512_xor_si512(_mm512_maskz_loadu_epi8(mask, a + i),
                                                          _mm512_set1_epi8(-128)));
        }
    }

    static inline __m512i load_codes(const uint8_t* p, int64_t valid) {
        if (valid >= 64) return _mm512_loadu_si512(p);
        return _mm512_maskz_loadu_epi8(simd::mask_64(valid > 0 ? valid : 0), p);
    }

    // Largest magnitude code of 16 rows of 128, one a lane.
    static inline __m512i largest(const uint8_t* b, const int64_t* offset, int64_t valid) {
        const __m512i magnitude = _mm512_set1_epi8(0x7f);
        __m512i v[16];
        for (int j = 0; j < 16; ++j)
            v[j] = _mm512_max_epu8(
                _mm512_and_si512(load_codes(b + offset[j], valid), magnitude),
                _mm512_and_si512(load_codes(b + offset[j] + 64, valid - 64), magnitude));
        const __m512i four =
            simd::combine_16(v, [](__m512i x, __m512i y) { return _mm512_max_epu8(x, y); });
        const __m512i two = _mm512_max_epu8(four, _mm512_srli_epi32(four, 16));
        return _mm512_and_si512(_mm512_max_epu8(two, _mm512_srli_epi32(two, 8)),
                                _mm512_set1_epi32(0xff));
    }

    // Magnitudes of 64 codes whose largest is `top`.
    static inline __m512i magnitudes(__m512i table, __m512i top, __m512i codes) {
        const __m512i below = _mm512_sub_epi8(top, _mm512_and_si512(codes, _mm512_set1_epi8(0x7f)));
        return _mm512_maskz_mov_epi8(_mm512_cmplt_epu8_mask(below, _mm512_set1_epi8(64)),
                                     Base::lookup(table, below));
    }

    static inline void requantise(const uint8_t* b, const int64_t* offset, int64_t valid,
                                  uint8_t* panel, int64_t stride, float* unit, int32_t* start) {
        alignas(64) int32_t top[16];
        const __m512i tops = largest(b, offset, valid);
        _mm512_store_si512(top, tops);
        _mm512_store_ps(unit, _mm512_i32gather_ps(tops, kInt8Tables.unit, 4));
        __m512i sum = _mm512_setzero_si512();
        for (int half = 0; half < 2; ++half) {
            __m512i v[16];
            for (int j = 0; j < 16; ++j) {
                const __m512i codes = load_codes(b + offset[j] + 64 * half, valid - 64 * half);
                const __m512i table = _mm512_load_si512(kInt8Tables.magnitude[top[j]]);
                const __m512i q =
                    magnitudes(table, _mm512_set1_epi8(static_cast<char>(top[j])), codes);
                v[j] =
                    _mm512_mask_sub_epi8(q, _mm512_movepi8_mask(codes), _mm512_setzero_si512(), q);
            }
            simd::transpose_16x16(v);
            for (int i = 0; i < 16; ++i) {
                _mm512_store_si512(panel + (16 * half + i) * stride, v[i]);
                sum = _mm512_dpbusd_epi32(sum, _mm512_set1_epi8(-128), v[i]);  // 128, unsigned
            }
        }
        _mm512_store_si512(start, _mm512_sub_epi32(_mm512_setzero_si512(), sum));
    }

    // 16 columns of one row at a time, straight from B.
    static inline void one_row(const NtTile& t) {
        for (int64_t col = 0; col < t.n; col += 32) {
            const __m512 x = one_row_columns(t, col);
            store_sums<Int8Vnni>(t, 0, col, x,
                                 col + 16 < t.n ? one_row_columns(t, col + 16) : zero());
        }
    }

    static inline __m512 one_row_columns(const NtTile& t, int64_t col) {
        const auto* b = static_cast<const uint8_t*>(t.b);
        const auto* a = static_cast<const uint8_t*>(t.a);
        int64_t offset[16];
        column_offsets<Int8Vnni>(t, col, offset);
        __m512 total = zero();
        const ColumnPrefetch prefetch(t, 1, kLanes, kLongAhead);
        for (int64_t k = 0; k < t.k; k += kBlockK, b += kBlockK, a += t.a_block_stride) {
            const int64_t valid = t.k - k;
            alignas(64) int32_t top[16];
            const __m512i tops = largest(b, offset, valid);
            _mm512_store_si512(top, tops);
            const __m512i sign = _mm512_set1_epi8(-128);
            const __m512i row[2] = {_mm512_xor_si512(_mm512_loadu_si512(a), sign),
                                    _mm512_xor_si512(_mm512_loadu_si512(a + 64), sign)};
            __m512i sums[16];
            for (int j = 0; j < 16; ++j) {
                const __m512i table = _mm512_load_si512(kInt8Tables.magnitude[top[j]]);
                const __m512i largest_code = _mm512_set1_epi8(static_cast<char>(top[j]));
                __m512i sum = _mm512_setzero_si512();
                prefetch.lines(b, offset, k, j, 1);
                prefetch.lines(b + 64, offset, k + 64, j, 1);
                for (int half = 0; half < 2; ++half) {
                    const __m512i codes = load_codes(b + offset[j] + 64 * half, valid - 64 * half);
                    const __m512i q = magnitudes(table, largest_code, codes);
                    const __m512i signed_row = _mm512_mask_sub_epi8(
                        row[half], _mm512_movepi8_mask(codes), _mm512_setzero_si512(), row[half]);
                    sum = _mm512_dpbusd_epi32(sum, q, signed_row);
                }
                sums[j] = sum;
            }
            const __m512i sum =
                simd::combine_16(sums, [](__m512i x, __m512i y) { return _mm512_add_epi32(x, y); });
            const __m512 unit =
                _mm512_mul_ps(_mm512_i32gather_ps(tops, kInt8Tables.unit, 4),
                              set1(t.b_scale[col / kBlockK * t.b_scale_ld + k / kBlockK]));
            total =
                fma(_mm512_cvtepi32_ps(sum), _mm512_mul_ps(set1(row_scale(t, 0, k)), unit), total);
        }
        return total;
    }
};

}  // namespace
}  // namespace dsa::gemm::cpu
