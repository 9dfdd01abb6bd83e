#pragma once
// Building blocks of the AVX-512 kernels. For ISA files only (compiled with AVX-512 flags):
// everything is static inline, so that no copy of it can be picked by the linker for another file.

#include <immintrin.h>

#include <cstdint>

#include "base/unrolled.h"

namespace dsa::simd {

// ---- widening ----

// 16 bf16 -> fp32.
static inline __m512 bf16_to_f32(__m256i x) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16));
}

// 16 fp32 -> bf16, nearest even; NaN stays NaN. Same bits as dsa::to_bf16.
static inline __m256i f32_to_bf16(__m512 x) {
    const __m512i u = _mm512_castps_si512(x);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
    __m512i r = _mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    r = _mm512_mask_or_epi32(r, nan, u, _mm512_set1_epi32(0x400000));
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(r, 16));
}

// 16 e4m3 -> fp32, exact: code << 7 read as fp16, times 2^8. NaN codes become NaN.
static inline __m512 e4m3_to_f32(__m128i codes) {
    const __mmask16 nan =
        _mm_cmpeq_epi8_mask(_mm_and_si128(codes, _mm_set1_epi8(0x7f)), _mm_set1_epi8(0x7f));
    __m256i h = _mm256_slli_epi16(_mm256_cvtepi8_epi16(codes), 7);
    h = _mm256_and_si256(h, _mm256_set1_epi16(static_cast<int16_t>(0xbfff)));
    h = _mm256_mask_set1_epi16(h, nan, 0x7e00);
    return _mm512_mul_ps(_mm512_cvtph_ps(h), _mm512_set1_ps(256.0F));
}

// Byte d of each dword, an e4m3 code, to fp32, exact; no step meets a denormal number.
static inline __m512 e4m3_byte_to_f32(__m512i codes, int d) {
    const __m512i top = _mm512_slli_epi32(codes, static_cast<unsigned>(24 - 8 * d));
    // Exponent and mantissa in fp32's place, with the exponent of 2^-120 too small.
    const __m512i bits = _mm512_and_si512(_mm512_srli_epi32(top, 4), _mm512_set1_epi32(0x07f00000));
    const __mmask16 subnormal = _mm512_cmplt_epi32_mask(bits, _mm512_set1_epi32(0x00800000));
    const __mmask16 nan = _mm512_cmpeq_epi32_mask(bits, _mm512_set1_epi32(0x07f00000));
    __m512 x = _mm512_castsi512_ps(_mm512_add_epi32(bits, _mm512_set1_epi32(120 << 23)));
    // m * 2^-9 is (1 + m / 8) * 2^-6 - 2^-6.
    x = _mm512_mask_sub_ps(
        x, subnormal, _mm512_castsi512_ps(_mm512_add_epi32(bits, _mm512_set1_epi32(121 << 23))),
        _mm512_set1_ps(0.015625F));
    const __m512i sign = _mm512_set1_epi32(static_cast<int>(0x80000000U));
    const __m512i y = _mm512_ternarylogic_epi32(_mm512_castps_si512(x), top, sign, 0xf8);
    return _mm512_castsi512_ps(_mm512_mask_mov_epi32(y, nan, _mm512_set1_epi32(0x7fc00000)));
}

// ---- masks ----

// The lowest n bits, n in 0 .. 16 / 32 / 64.
static inline __mmask16 mask_16(int64_t n) {
    return static_cast<__mmask16>(n >= 16 ? 0xffffU : (1U << n) - 1U);
}
static inline __mmask32 mask_32(int64_t n) {
    return static_cast<__mmask32>(n >= 32 ? 0xffffffffU : (1U << n) - 1U);
}
static inline __mmask64 mask_64(int64_t n) {
    return n >= 64 ? ~__mmask64{0} : (__mmask64{1} << n) - 1U;
}

// ---- registers ----

// For what kernels are made of: in a file of many kernels g++ stops inlining where it likes.
#define DSA_INLINE __attribute__((always_inline)) static inline

// x in a register: g++ 12 would move it through memory to change the type of its lanes.
static inline __m512i in_register(__m512i x) {
    asm("" : "+v"(x));
    return x;
}

// Four bytes of memory of whatever type, for an operand of assembly.
typedef uint32_t Dword __attribute__((may_alias));

// ---- sums ----

// Lane j of the result combines the 16 dwords of load(j). The order is the same for each j, so a
// value has the same bits wherever in a tile it is computed.
template <class Load, class Combine>
DSA_INLINE __m512i combine_16(const Load& load, const Combine& combine) {
    const auto halves = [&](__m512i x, __m512i y) {
        return combine(_mm512_shuffle_i32x4(x, y, 0x88), _mm512_shuffle_i32x4(x, y, 0xdd));
    };
    __m512i b[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
        const auto pair = [&](int j) {
            const __m512i x = in_register(load(j));
            const __m512i y = in_register(load(j + 1));
            return combine(_mm512_unpacklo_epi32(x, y), _mm512_unpackhi_epi32(x, y));
        };
        const __m512i x = pair(4 * i);
        const __m512i y = pair(4 * i + 2);
        b[i] = combine(_mm512_unpacklo_epi64(x, y), _mm512_unpackhi_epi64(x, y));
    }
    return halves(halves(b[0], b[1]), halves(b[2], b[3]));
}

// Lane j of the result is the sum of the 16 lanes of v[j].
static inline __m512 reduce_16(const __m512* v) {
    return _mm512_castsi512_ps(combine_16([&](int j) { return _mm512_castps_si512(v[j]); },
                                          [](__m512i x, __m512i y) {
                                              return _mm512_castps_si512(_mm512_add_ps(
                                                  _mm512_castsi512_ps(x), _mm512_castsi512_ps(y)));
                                          }));
}

// ---- transposition ----

// Units of kBytes of a and b in turn, of the lower or upper half of each 128 bits.
template <int kBytes>
static inline __m512i unpack_low(__m512i a, __m512i b) {
    if constexpr (kBytes == 2) return _mm512_unpacklo_epi16(a, b);
    if constexpr (kBytes == 4) return _mm512_unpacklo_epi32(a, b);
    return _mm512_unpacklo_epi64(a, b);
}
template <int kBytes>
static inline __m512i unpack_high(__m512i a, __m512i b) {
    if constexpr (kBytes == 2) return _mm512_unpackhi_epi16(a, b);
    if constexpr (kBytes == 4) return _mm512_unpackhi_epi32(a, b);
    return _mm512_unpackhi_epi64(a, b);
}

// Four rows x0 .. x3 of 64 bytes: b[c] gets dwords c, c + 4, c + 8, c + 12 of them, 128 bits each.
// With kBytes = 2 each 128 bits of it have the first halves of their four dwords, then the second
// halves.
template <int kBytes>
DSA_INLINE void transpose_four(__m512i x0, __m512i x1, __m512i x2, __m512i x3, __m512i* b) {
    const __m512i low01 = unpack_low<kBytes>(x0, x1);
    const __m512i low23 = unpack_low<kBytes>(x2, x3);
    const __m512i high01 = unpack_high<kBytes>(x0, x1);
    const __m512i high23 = unpack_high<kBytes>(x2, x3);
    b[0] = unpack_low<2 * kBytes>(low01, low23);
    b[1] = unpack_high<2 * kBytes>(low01, low23);
    b[2] = unpack_low<2 * kBytes>(high01, high23);
    b[3] = unpack_high<2 * kBytes>(high01, high23);
}

// b[c] of four times four rows: emit(i, dwords c + 4 * i of the 16 rows, row 0 first), i in 0 .. 3.
template <class Emit>
DSA_INLINE void join_fours(__m512i b0, __m512i b1, __m512i b2, __m512i b3, const Emit& emit) {
    const __m512i top_even = _mm512_shuffle_i32x4(b0, b1, 0x88);
    const __m512i top_odd = _mm512_shuffle_i32x4(b0, b1, 0xdd);
    const __m512i end_even = _mm512_shuffle_i32x4(b2, b3, 0x88);
    const __m512i end_odd = _mm512_shuffle_i32x4(b2, b3, 0xdd);
    emit(0, _mm512_shuffle_i32x4(top_even, end_even, 0x88));
    emit(2, _mm512_shuffle_i32x4(top_even, end_even, 0xdd));
    emit(1, _mm512_shuffle_i32x4(top_odd, end_odd, 0x88));
    emit(3, _mm512_shuffle_i32x4(top_odd, end_odd, 0xdd));
}

// 16 rows load(i) of 64 bytes, transposed: v[i] gets dword i of each row, row 0 first. kBytes: see
// transpose_four.
template <int kBytes, class Load>
DSA_INLINE void transpose_16x16(const Load& load, __m512i* v) {
    __m512i b[16];
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {
        const __m512i x0 = in_register(load(i));
        const __m512i x1 = in_register(load(i + 1));
        const __m512i x2 = in_register(load(i + 2));
        const __m512i x3 = in_register(load(i + 3));
        transpose_four<kBytes>(x0, x1, x2, x3, b + i);
    }
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c)
        join_fours(b[c], b[c + 4], b[c + 8], b[c + 12],
                   [&](int i, __m512i x) { v[c + 4 * i] = x; });
}

// 64 bytes from each of 16 columns (p + offset[j]), transposed (kBytes: see transpose_16x16): bytes
// or 16-bit values, valid of them; zeros behind.
template <int kBytes>
DSA_INLINE void load_columns(const uint8_t* p, const int64_t* offset, int64_t valid, __m512i* v) {
    if (valid >= 64)
        return transpose_16x16<kBytes>([&](int j) { return _mm512_loadu_si512(p + offset[j]); }, v);
    const __mmask64 mask = mask_64(valid > 0 ? valid : 0);
    transpose_16x16<kBytes>([&](int j) { return _mm512_maskz_loadu_epi8(mask, p + offset[j]); }, v);
}
DSA_INLINE void load_columns(const uint16_t* p, const int64_t* offset, int64_t valid, __m512i* v) {
    if (valid >= 32)
        return transpose_16x16<4>([&](int j) { return _mm512_loadu_si512(p + offset[j]); }, v);
    const __mmask32 mask = mask_32(valid > 0 ? valid : 0);
    transpose_16x16<4>([&](int j) { return _mm512_maskz_loadu_epi16(mask, p + offset[j]); }, v);
}

// 32 bytes from each of 16 columns, load(j), transposed: emit(i, dword i of each column, column 0
// first) for i in 0 .. 7 (kBytes: see transpose_four). Halves of a vector cost fewer shuffles than
// whole ones (transpose_16x16), and few registers.
template <int kBytes, class Load, class Emit>
DSA_INLINE void transpose_16x8(const Load& load, const Emit& emit) {
    __m512i first[4];
    __m512i second[4];
    const auto pair = [&](int j) DSA_INLINE_LAMBDA {
        return in_register(_mm512_inserti64x4(_mm512_castsi256_si512(load(j)), load(j + 4), 1));
    };
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
        const __m512i x = pair(j);
        const __m512i y = pair(j + 8);
        first[j] = _mm512_shuffle_i32x4(x, y, 0x88);
        second[j] = _mm512_shuffle_i32x4(x, y, 0xdd);
    }
    __m512i v[4];
    transpose_four<kBytes>(first[0], first[1], first[2], first[3], v);
    unrolled<4>([&](auto i) DSA_INLINE_LAMBDA { emit(i, v[i]); });
    transpose_four<kBytes>(second[0], second[1], second[2], second[3], v);
    unrolled<4>([&](auto i) DSA_INLINE_LAMBDA { emit(4 + i, v[i]); });
}

// 64 values of k (valid of them, zeros behind) of 16 columns: emit(step, lanes) for each value, as
// fp32.
template <class Emit>
static inline void e4m3_columns_to_f32(const uint8_t* p, const int64_t* offset, int64_t valid,
                                       const Emit& emit) {
    __m512i v[16];
    load_columns<4>(p, offset, valid, v);
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i)
#pragma GCC unroll 4
        for (int d = 0; d < 4; ++d) emit(4 * i + d, e4m3_byte_to_f32(v[i], d));
}

// ---- exp ----

// exp(x), relative error below 2e-7 where the result is a normal number; NaN stays NaN, -inf gives
// 0.
static inline __m512 exp_ps(__m512 x) {
    x = _mm512_max_ps(_mm512_set1_ps(-105.0F), x);  // the second operand is returned for NaN
    x = _mm512_min_ps(_mm512_set1_ps(89.0F), x);
    const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504F)),
                                          _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693145752F), x);  // ln 2 in two parts
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(1.42860677e-6F), r);
    __m512 p = _mm512_set1_ps(1.0F / 720.0F);  // Taylor series; |r| <= ln(2) / 2
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0F / 120.0F));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0F / 24.0F));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0F / 6.0F));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.5F));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0F));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0F));
    return _mm512_scalef_ps(p, n);
}

// ---- e4m3 -> bf16 by table (VBMI) ----

#if defined(__AVX512VBMI__) && defined(__AVX512BF16__)

// Low and high bytes of the bf16 value of the 128 magnitudes.
struct E4m3Bf16Bytes {
    alignas(64) uint8_t low[128];
    alignas(64) uint8_t high[128];
};

static constexpr E4m3Bf16Bytes make_e4m3_bf16_bytes() {
    E4m3Bf16Bytes t{};
    for (unsigned code = 0; code < 128; ++code) {
        unsigned exponent = code >> 3;
        unsigned mantissa = code & 7U;
        unsigned bits = 0;
        if (code == 0x7f) {
            bits = 0x7fc0;
        } else if (exponent != 0) {
            bits = ((exponent + 120U) << 7) | (mantissa << 4);
        } else if (mantissa != 0) {  // subnormal: mantissa * 2^-9, normalised
            unsigned shift = 0;
            while (((mantissa << shift) & 8U) == 0) ++shift;
            bits = ((121U - shift) << 7) | (((mantissa << shift) & 7U) << 4);
        }
        t.low[code] = static_cast<uint8_t>(bits & 0xffU);
        t.high[code] = static_cast<uint8_t>(bits >> 8);
    }
    return t;
}

static constexpr E4m3Bf16Bytes kE4m3Bf16Bytes = make_e4m3_bf16_bytes();

// The table in registers, and the conversion of 64 codes to two vectors of 32 bf16, in order.
struct E4m3ToBf16 {
    __m512i low0, low1, high0, high1, order, sign;
};

static inline E4m3ToBf16 load_e4m3_to_bf16() {
    return {_mm512_load_si512(kE4m3Bf16Bytes.low),     _mm512_load_si512(kE4m3Bf16Bytes.low + 64),
            _mm512_load_si512(kE4m3Bf16Bytes.high),    _mm512_load_si512(kE4m3Bf16Bytes.high + 64),
            _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7), _mm512_set1_epi8(static_cast<char>(0x80))};
}

// Low and high bytes of the bf16 values of 64 codes.
static inline void e4m3_to_bf16_bytes(const E4m3ToBf16& t, __m512i codes, __m512i* low,
                                      __m512i* high) {
    *low = _mm512_permutex2var_epi8(t.low0, codes, t.low1);
    const __m512i magnitude = _mm512_permutex2var_epi8(t.high0, codes, t.high1);
    *high = _mm512_ternarylogic_epi64(magnitude, codes, t.sign, 0xf8);  // a | (b & c)
}

// 16 columns of four codes, as load_columns<2> gives them, to their pairs (c0, c1) and (c2, c3).
static inline void e4m3_to_bf16_pairs(const E4m3ToBf16& t, __m512i codes, __m512i* first,
                                      __m512i* second) {
    __m512i low;
    __m512i high;
    e4m3_to_bf16_bytes(t, codes, &low, &high);
    *first = _mm512_unpacklo_epi8(low, high);
    *second = _mm512_unpackhi_epi8(low, high);
}

static inline void e4m3_to_bf16(const E4m3ToBf16& t, __m512i codes, __m512i* first,
                                __m512i* second) {
    e4m3_to_bf16_pairs(t, _mm512_permutexvar_epi64(t.order, codes), first, second);
}

// 64 values of k (valid of them, zeros behind) of 16 columns of e4m3: emit(step, lanes) for each
// pair of k.
template <class Emit>
static inline void e4m3_columns_to_bf16(const E4m3ToBf16& t, const uint8_t* p,
                                        const int64_t* offset, int64_t valid, const Emit& emit) {
    __m512i v[16];
    load_columns<2>(p, offset, valid, v);
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) {
        __m512i first;
        __m512i second;
        e4m3_to_bf16_pairs(t, v[i], &first, &second);
        emit(2 * i, first);
        emit(2 * i + 1, second);
    }
}

// The pair at p in every lane.
static inline __m512i broadcast_pair(const uint16_t* p) {
    int32_t pair = 0;
    __builtin_memcpy(&pair, p, 4);
    return _mm512_set1_epi32(pair);
}

// acc + sums of products of neighbouring bf16 pairs.
static inline __m512 dot_bf16(__m512 acc, __m512i a, __m512i b) {
    return _mm512_dpbf16_ps(acc, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
}

#endif

}  // namespace dsa::simd
