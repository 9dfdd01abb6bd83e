#pragma once
// V of int8_tile.h for AVX-512 VNNI, whose products take an unsigned operand and a signed one: B is
// requantised to value + 128, and the opposite of what that adds, a sum of a row of A, is what
// integer sums start from. So the operand that memory broadcasts, A, can be the signed one.
// Lookup<base>(largest).magnitudes(codes) gives the int8 magnitudes + base of codes whose largest
// magnitude code is `largest`; kFewRows: rows up to which there is no panel; kZero: what a panel
// has for 0.

#include <immintrin.h>

#include <cstdint>
#include <utility>

#include "base/avx512.h"
#include "gemm/cpu/column_runs.h"
#include "gemm/cpu/int8_few_rows.h"
#include "gemm/cpu/int8_tables.h"
#include "gemm/cpu/int8_tile.h"
#include "gemm/cpu/lanes512.h"

namespace dsa::gemm::cpu {
namespace {

template <template <int> class Lookup, int kFewRows, int kZero = 128>
struct Int8Vnni : Lanes512 {
    using Vec = __m512i;
    // The type that the instruction has: g++ 12 keeps an array of __m512i in memory.
    typedef int IntSum __attribute__((vector_size(64)));
    using Element = int8_t;
    static constexpr int kStepK = 4;
    static constexpr int kRows = 6;
    static constexpr int kPanelBlocks = 2;
    static constexpr bool kShifts = true;
    // Measured on Zen 5.
    static constexpr int64_t columns_first_rows(bool /*conflict*/) { return 64; }

    static inline Vec load(const int8_t* p) { return _mm512_load_si512(p); }
    static inline Vec broadcast(const int8_t* p) {
        int32_t four = 0;
        __builtin_memcpy(&four, p, 4);
        return _mm512_set1_epi32(four);
    }
    static inline IntSum set1_int(int32_t x) { return IntSum(_mm512_set1_epi32(x)); }
    static inline __m512 to_float(IntSum x) { return _mm512_cvtepi32_ps(__m512i(x)); }
    static inline IntSum load_ints(const int32_t* p) { return IntSum(_mm512_load_si512(p)); }
    static inline IntSum shift_left(IntSum x, IntSum n) {
        return IntSum(_mm512_sllv_epi32(__m512i(x), __m512i(n)));
    }
    static inline IntSum dot(IntSum acc, Vec a, Vec b) {
        return IntSum(_mm512_dpbusd_epi32(__m512i(acc), b, a));
    }
    // With four values at a broadcast by the product itself, which g++ does not do.
    static inline IntSum dot_at(IntSum acc, const int8_t* a, Vec b) {
        IntSum sum;
        asm("vpdpbusd %3%{1to16%}, %2, %0"
            : "=v"(sum)
            : "0"(acc), "v"(b), "m"(*reinterpret_cast<const simd::Dword*>(a)));
        return sum;
    }

    static inline int32_t pack_row(const int8_t* a, int64_t valid, int8_t* out) {
        const __m512i from_128 = _mm512_set1_epi8(-128);  // unsigned
        __m512i start = _mm512_setzero_si512();
        for (int64_t i = 0; i < kBlockK; i += 64) {
            const __mmask64 mask = simd::mask_64(valid > i ? valid - i : 0);
            const __m512i values = _mm512_maskz_loadu_epi8(mask, a + i);
            _mm512_storeu_si512(out + i, values);
            start = _mm512_dpbusd_epi32(start, from_128, values);
        }
        return -_mm512_reduce_add_epi32(start);
    }

    // 128 codes of each of 16 columns of B, zeros behind the first `valid`.
    template <bool kWhole>
    struct Codes {
        const uint8_t* b;
        const int64_t* offset;
        __mmask64 mask[2];

        Codes(const uint8_t* codes, const int64_t* column_offset, int64_t valid)
            : b(codes),
              offset(column_offset),
              mask{simd::mask_64(valid), simd::mask_64(valid > 64 ? valid - 64 : 0)} {}
        inline __m512i operator()(int column, int half) const {
            const uint8_t* p = b + offset[column] + 64 * half;
            return kWhole ? _mm512_loadu_si512(p) : _mm512_maskz_loadu_epi8(mask[half], p);
        }
    };

    // Largest magnitude code of the columns, one a lane.
    template <class Codes>
    static inline __m512i largest(const Codes& codes) {
        const __m512i magnitude = _mm512_set1_epi8(0x7f);
        const __m512i four = simd::combine_16(
            [&](int j) {
                return _mm512_max_epu8(_mm512_and_si512(codes(j, 0), magnitude),
                                       _mm512_and_si512(codes(j, 1), magnitude));
            },
            [](__m512i x, __m512i y) { return _mm512_max_epu8(x, y); });
        const __m512i two = _mm512_max_epu8(four, _mm512_srli_epi32(four, 16));
        return _mm512_and_si512(_mm512_max_epu8(two, _mm512_srli_epi32(two, 8)),
                                _mm512_set1_epi32(0xff));
    }
    static inline __m512i largest(const uint8_t* b, const int64_t* offset, int64_t valid) {
        return valid >= kBlockK ? largest(Codes<true>(b, offset, valid))
                                : largest(Codes<false>(b, offset, valid));
    }
    // For one by one: g++ would take them out of the register lane by lane.
    static inline void store_largest(__m512i tops, int32_t* top) {
        _mm512_store_si512(top, tops);
        asm("" : "+m"(*reinterpret_cast<int32_t(*)[16]>(top)));
    }
    // What 1 means for columns with these largest codes.
    static inline __m512 units(__m512i largest_codes) {
        return _mm512_i32gather_ps(largest_codes, kInt8Tables.unit, 4);
    }
    static inline std::pair<int32_t, int32_t> shifts(const float* unit, int32_t* shift) {
        const __m512i x = _mm512_srli_epi32(_mm512_load_si512(unit), 23);
        const __m512i y = _mm512_srli_epi32(_mm512_load_si512(unit + 16), 23);
        const __mmask16 has_x = _mm512_test_epi32_mask(x, x);
        const __mmask16 has_y = _mm512_test_epi32_mask(y, y);
        const __m512i none = _mm512_set1_epi32(255);
        const int32_t least = _mm512_reduce_min_epi32(_mm512_min_epi32(
            _mm512_mask_mov_epi32(none, has_x, x), _mm512_mask_mov_epi32(none, has_y, y)));
        const __m512i lowest = _mm512_set1_epi32(least);
        _mm512_store_si512(shift, _mm512_maskz_sub_epi32(has_x, x, lowest));
        _mm512_store_si512(shift + 16, _mm512_maskz_sub_epi32(has_y, y, lowest));
        return {least, _mm512_reduce_max_epi32(_mm512_max_epi32(x, y))};
    }
    // x, its opposite where the code is negative.
    static inline __m512i with_sign(__m512i x, __m512i codes) {
        return _mm512_mask_sub_epi8(x, _mm512_movepi8_mask(codes), _mm512_setzero_si512(), x);
    }
    // Values + kZero.
    static inline __m512i requantised(int32_t largest_code, __m512i codes) {
        return with_sign(Lookup<kZero>(largest_code).magnitudes(codes), codes);
    }

    template <class Next>
    static inline void requantise(const uint8_t* b, const int64_t* offset, int64_t valid,
                                  Next& next, int8_t* panel, float* unit) {
        if (valid >= kBlockK) return requantise<true>(b, offset, valid, next, panel, unit);
        requantise<false>(b, offset, valid, next, panel, unit);
    }

    // The largest codes of all columns come first: finding them is a long chain.
    template <bool kWhole, class Next>
    static inline void requantise(const uint8_t* b, const int64_t* offset, int64_t valid,
                                  Next& next, int8_t* panel, float* unit) {
        alignas(64) int32_t top[32];
        const Codes<kWhole> codes[2] = {{b, offset, valid}, {b, offset + 16, valid}};
#pragma GCC unroll 2
        for (int g = 0; g < 2; ++g) {
            const __m512i tops = largest(codes[g]);
            store_largest(tops, top + 16 * g);
            _mm512_store_ps(unit + 16 * g, units(tops));
        }
        for (int g = 0; g < 2; ++g)
            for (int half = 0; half < 2; ++half) {
                __m512i v[16];
                simd::transpose_16x16<4>(
                    [&](int j) {
                        next.column();
                        return requantised(top[16 * g + j], codes[g](j, half));
                    },
                    v);
#pragma GCC unroll 16
                for (int i = 0; i < 16; ++i)
                    _mm512_store_si512(panel + (2 * (16 * half + i) + g) * 64, v[i]);
            }
    }

    // Few rows: measured on Zen 4, with one lookup for all codes, and on Granite Rapids, with four
    // shuffles in its place as well.
    static inline bool without_panel(const NtTile& t) {
        if (t.m == 1)
            return goes_in_runs(t) ? one_row<NextOfRuns<1, kLanes>>(t)
                                   : one_row<NextOfNeighbours<1, kLanes>>(t);
        if constexpr (kFewRows > 1) {
            if (t.m <= kFewRows && t.k >= 512) {
                int8_few_rows<Int8Vnni, kFewRows>(t);
                return true;
            }
        }
        return false;
    }

    static inline bool has_lowest(const NtTile& t) {  // -128 in its only row
        const auto* a = static_cast<const int8_t*>(t.a);
        __m512i least = _mm512_setzero_si512();
        for (int64_t k = 0; k < t.k; k += kBlockK, a += t.a_block_stride)
            least = _mm512_min_epi8(
                least, _mm512_min_epi8(_mm512_loadu_si512(a), _mm512_loadu_si512(a + 64)));
        return _mm512_cmpeq_epi8_mask(least, _mm512_set1_epi8(-128)) != 0;
    }

    // 16 columns of one row at a time, straight from B. Magnitudes of B are unsigned as they are,
    // and signs move from codes to the row, where -128 has no opposite: lookup and sign side by
    // side are a shorter chain than one after the other.
    template <class Next>
    static inline bool one_row(const NtTile& t) {
        if (has_lowest(t)) return false;
        const Visits<kLanes> visits(t);
        alignas(64) float sums[kTileColumns];
        for (int64_t i = 0; i < visits.count(); ++i)
            store_sum(sums + i * kLanes, one_row_columns<Next>(t, visits, i));
        store_visits<Int8Vnni>(t, visits, sums);
        return true;
    }

    // A block's sums of 16 columns with these largest codes.
    template <class Codes, class Next>
    static inline __m512i one_row_block(const Codes& codes, const int32_t* top, const int8_t* a,
                                        Next& next) {
        const __m512i row[2] = {_mm512_loadu_si512(a), _mm512_loadu_si512(a + 64)};
        return simd::combine_16(
            [&](int j) {
                next.column(codes.b + codes.offset[j]);
                const Lookup<0> lookup(top[j]);
                __m512i sum = _mm512_setzero_si512();
#pragma GCC unroll 2
                for (int half = 0; half < 2; ++half) {
                    const __m512i c = codes(j, half);
                    sum = _mm512_dpbusd_epi32(sum, lookup.magnitudes(c), with_sign(row[half], c));
                }
                return sum;
            },
            [](__m512i x, __m512i y) { return _mm512_add_epi32(x, y); });
    }

    // Blocks of k from `k` to `end` of 16 columns, which are at b + offset[j], added to their
    // total.
    template <class Next>
    static inline __m512 one_row_blocks(const NtTile& t, int64_t col, const uint8_t* b,
                                        const int64_t* offset, int64_t k, int64_t end, Next& next,
                                        __m512 total) {
        const auto* a = static_cast<const int8_t*>(t.a) + k / kBlockK * t.a_block_stride;
        __m512i tops = largest(b, offset, end - k);
        for (; k < end; k += kBlockK, b += kBlockK, a += t.a_block_stride) {
            alignas(64) int32_t top[16];
            _mm512_store_si512(top, tops);
            next.block(k);
            const __m512 unit = _mm512_mul_ps(
                units(tops), set1(t.b_scale[col / kBlockK * t.b_scale_ld + k / kBlockK]));
            const int64_t valid = end - k;
            // Of the next block, in the shadow of this one's products: finding them is a long
            // chain.
            if (valid > kBlockK) tops = largest(b + kBlockK, offset, valid - kBlockK);
            const __m512i sum = valid >= kBlockK
                                    ? one_row_block(Codes<true>(b, offset, valid), top, a, next)
                                    : one_row_block(Codes<false>(b, offset, valid), top, a, next);
            total =
                fma(_mm512_cvtepi32_ps(sum), _mm512_mul_ps(set1(row_scale(t, 0, k)), unit), total);
        }
        return total;
    }

    template <class Next>
    static inline __m512 one_row_columns(const NtTile& t, const Visits<kLanes>& visits, int64_t i) {
        const auto* b = static_cast<const uint8_t*>(t.b);
        const int64_t col = visits[i].column[0];
        int64_t offset[kLanes];
        visits[i].offsets(t, offset);
        Next next(t, visits, i, whole_range(t), offset);
        __m512 total = zero();
        constexpr int64_t kRun = kCopiedRun<uint8_t>;
        const int64_t k = with_copies<uint8_t, kLanes, kRun>(
            t, offset, false, [&](const uint8_t* values, const int64_t* places, int64_t first) {
                total = one_row_blocks(t, col, values, places, first, first + kRun, next, total);
            });
        return k < t.k ? one_row_blocks(t, col, b + k, offset, k, t.k, next, total) : total;
    }
};

}  // namespace
}  // namespace dsa::gemm::cpu
