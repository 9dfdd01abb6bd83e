#pragma once
// Building blocks of the AVX-512 kernels. For ISA files only (compiled with AVX-512 flags):
// everything is static inline, so that no copy of it can be picked by the linker for another file.

#include <immintrin.h>

#include <cstdint>

namespace dsa::simd {

// ---- widening
// ------------------------------------------------------------------------------------

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

// 16 e4m3 -> fp32 / 2^8, exact: code << 7 read as fp16. NaN codes become NaN.
static inline __m512 e4m3_to_f32_over_256(__m128i codes) {
    const __mmask16 nan =
        _mm_cmpeq_epi8_mask(_mm_and_si128(codes, _mm_set1_epi8(0x7f)), _mm_set1_epi8(0x7f));
    __m256i h = _mm256_slli_epi16(_mm256_cvtepi8_epi16(codes), 7);
    h = _mm256_and_si256(h, _mm256_set1_epi16(static_cast<int16_t>(0xbfff)));
    h = _mm256_mask_set1_epi16(h, nan, 0x7e00);
    return _mm512_cvtph_ps(h);
}

// 16 e4m3 -> fp32, exact.
static inline __m512 e4m3_to_f32(__m128i codes) {
    return _mm512_mul_ps(e4m3_to_f32_over_256(codes), _mm512_set1_ps(256.0F));
}

// ---- sums
// ----------------------------------------------------------------------------------------

// Lane j of the result is the sum of the 16 lanes of v[j]. The order of additions is the same for
// each j, so a value has the same bits wherever in a tile it is computed.
static inline __m512 reduce_16(const __m512* v) {
    __m512 a[8];
    __m512 b[4];
    for (int i = 0; i < 8; ++i)
        a[i] = _mm512_add_ps(_mm512_unpacklo_ps(v[2 * i], v[2 * i + 1]),
                             _mm512_unpackhi_ps(v[2 * i], v[2 * i + 1]));
    for (int i = 0; i < 4; ++i) {
        const __m512d x = _mm512_castps_pd(a[2 * i]);
        const __m512d y = _mm512_castps_pd(a[2 * i + 1]);
        b[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(x, y)),
                             _mm512_castpd_ps(_mm512_unpackhi_pd(x, y)));
    }
    const __m512 c0 = _mm512_add_ps(_mm512_shuffle_f32x4(b[0], b[1], 0x88),
                                    _mm512_shuffle_f32x4(b[0], b[1], 0xdd));
    const __m512 c1 = _mm512_add_ps(_mm512_shuffle_f32x4(b[2], b[3], 0x88),
                                    _mm512_shuffle_f32x4(b[2], b[3], 0xdd));
    return _mm512_add_ps(_mm512_shuffle_f32x4(c0, c1, 0x88), _mm512_shuffle_f32x4(c0, c1, 0xdd));
}

// ---- exp
// -----------------------------------------------------------------------------------------

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

// ---- masks
// ---------------------------------------------------------------------------------------

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

// ---- e4m3 -> bf16 by table (VBMI)
// ----------------------------------------------------------------

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

// Bytes as they are: *first takes the low, *second the high 8 codes of each 16.
static inline void e4m3_to_bf16_unordered(const E4m3ToBf16& t, __m512i codes, __m512i* first,
                                          __m512i* second) {
    const __m512i low = _mm512_permutex2var_epi8(t.low0, codes, t.low1);
    const __m512i magnitude = _mm512_permutex2var_epi8(t.high0, codes, t.high1);
    const __m512i high = _mm512_ternarylogic_epi64(magnitude, codes, t.sign, 0xf8);  // a | (b & c)
    *first = _mm512_unpacklo_epi8(low, high);
    *second = _mm512_unpackhi_epi8(low, high);
}

static inline void e4m3_to_bf16(const E4m3ToBf16& t, __m512i codes, __m512i* first,
                                __m512i* second) {
    e4m3_to_bf16_unordered(t, _mm512_permutexvar_epi64(t.order, codes), first, second);
}

// acc + sums of products of neighbouring bf16 pairs.
static inline __m512 dot_bf16(__m512 acc, __m512i a, __m512i b) {
    return _mm512_dpbf16_ps(acc, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
}

#endif

}  // namespace dsa::simd
