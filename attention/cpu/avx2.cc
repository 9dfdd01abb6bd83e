// Sparse MLA with AVX2 and FMA: keys in bf16, two to a dword, to fp32 in registers. Of each 16 dims
// of a query or of z the even ones lie before the odd ones, as the halves of a key's dwords.

#include <immintrin.h>

#include <cstdint>

#include "attention/cpu/gather.h"
#include "attention/cpu/kernels.h"
#include "base/avx2.h"

namespace dsa::attention::cpu {
namespace {

// ---- keys ----

inline __m256i load(const void* p) {
    return _mm256_loadu_si256(static_cast<const __m256i*>(p));
}
inline void store(void* p, __m256i x) {
    _mm256_storeu_si256(static_cast<__m256i*>(p), x);
}
// The even (part 0) or odd ones of 16 bf16.
inline __m256 part_of(__m256i x, int part) {
    const __m256i odd = _mm256_set1_epi32(static_cast<int>(0xffff0000U));
    return _mm256_castsi256_ps(part == 0 ? _mm256_slli_epi32(x, 16) : _mm256_and_si256(x, odd));
}

// 16 e4m3 codes, none of them NaN, to bf16 with `exponent` added to theirs: a shift and an
// addition, zero and the subnormals (m * 2^-9) by a table.
class Widening {
  public:
    explicit Widening(int exponent) {
        const __m256i shift = _mm256_set1_epi16(static_cast<int16_t>(exponent * 128));
        const __m256i zero_stays =
            _mm256_setr_epi16(0, -1, -1, -1, -1, -1, -1, -1, 0, -1, -1, -1, -1, -1, -1, -1);
        const __m256i table =
            _mm256_setr_epi16(0, 0x3b00, 0x3b80, 0x3bc0, 0x3c00, 0x3c20, 0x3c40, 0x3c60, 0, 0x3b00,
                              0x3b80, 0x3bc0, 0x3c00, 0x3c20, 0x3c40, 0x3c60);
        bias_ = _mm256_add_epi16(shift, _mm256_set1_epi16(120 * 128));
        table_ = _mm256_add_epi16(table, _mm256_and_si256(shift, zero_stays));
    }
    __m256i operator()(__m128i codes) const {
        const __m256i words = _mm256_cvtepu8_epi16(codes);
        const __m256i magnitude = _mm256_and_si256(words, _mm256_set1_epi16(0x7f));
        const __m256i normal = _mm256_add_epi16(_mm256_slli_epi16(magnitude, 4), bias_);
        const __m256i bytes = _mm256_add_epi16(
            _mm256_mullo_epi16(magnitude, _mm256_set1_epi16(0x0202)), _mm256_set1_epi16(0x0100));
        const __m256i small = _mm256_cmpgt_epi16(_mm256_set1_epi16(8), magnitude);
        const __m256i x = _mm256_blendv_epi8(normal, _mm256_shuffle_epi8(table_, bytes), small);
        const __m256i sign = _mm256_set1_epi16(static_cast<int16_t>(0x8000));
        return _mm256_or_si256(x, _mm256_and_si256(_mm256_slli_epi16(words, 8), sign));
    }

  private:
    __m256i bias_, table_;
};

// Whether a record's scales only move exponents, with bf16's range to spare, and no code is NaN.
inline bool is_plain(const uint8_t* record) {
    const __m128i scales = _mm_loadu_si128(reinterpret_cast<const __m128i*>(record + kLatent));
    const __m128i exact =
        _mm_cmpeq_epi32(_mm_and_si128(scales, _mm_set1_epi32(0x007fffff)), _mm_setzero_si128());
    const __m128i above = _mm_cmpgt_epi32(scales, _mm_set1_epi32(63 << 23));
    const __m128i below = _mm_cmpgt_epi32(_mm_set1_epi32(191 << 23), scales);
    if (_mm_movemask_epi8(_mm_and_si128(exact, _mm_and_si128(above, below))) != 0xffff)
        return false;
    const __m256i magnitude = _mm256_set1_epi8(0x7f);
    __m256i top = _mm256_setzero_si256();
    for (int64_t d = 0; d < kLatent; d += 32)
        top = _mm256_max_epu8(top, _mm256_and_si256(load(record + d), magnitude));
    const __m256i nan = _mm256_cmpeq_epi8(top, magnitude);
    return _mm256_testz_si256(nan, nan) != 0;
}

inline float scale_of(const uint8_t* record, int64_t dim) {
    float scale = 0.0F;
    __builtin_memcpy(&scale, record + kLatent + dim / 128 * 4, 4);
    return scale;
}

// 656 bytes to 576 bf16, the values that the record stands for.
inline void widen_record(const uint8_t* record, uint16_t* out) {
    const bool plain = is_plain(record);
    for (int64_t block = 0; block < kLatent; block += 128) {
        const float scale = scale_of(record, block);
        const uint8_t* codes = record + block;
        if (plain) {
            uint32_t bits = 0;
            __builtin_memcpy(&bits, &scale, 4);
            const Widening widen(static_cast<int>(bits >> 23) - 127);
            for (int64_t d = 0; d < 128; d += 16)
                store(out + block + d,
                      widen(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codes + d))));
        } else {
            for (int64_t d = 0; d < 128; d += 8) {
                const __m256 x = simd256::e4m3_to_f32(
                    _mm_loadl_epi64(reinterpret_cast<const __m128i*>(codes + d)));
                _mm_storeu_si128(reinterpret_cast<__m128i*>(out + block + d),
                                 simd256::f32_to_bf16(_mm256_mul_ps(x, _mm256_set1_ps(scale))));
            }
        }
    }
    __builtin_memcpy(out + kLatent, record + kLatent + 16, kRope * 2);
}

// ---- one split ----

void widen_queries(const uint16_t* q, int64_t heads, float* out) {
    for (int64_t i = 0; i < heads * kKey; i += 16)
        for (int part = 0; part < 2; ++part)
            _mm256_storeu_ps(out + i + 8 * part, part_of(load(q + i), part));
}

// The sums of the lanes of 8 vectors.
inline __m256 sum_lanes(const __m256* v) {
    const __m256 low = _mm256_hadd_ps(_mm256_hadd_ps(v[0], v[1]), _mm256_hadd_ps(v[2], v[3]));
    const __m256 high = _mm256_hadd_ps(_mm256_hadd_ps(v[4], v[5]), _mm256_hadd_ps(v[6], v[7]));
    return _mm256_add_ps(_mm256_permute2f128_ps(low, high, 0x20),
                         _mm256_permute2f128_ps(low, high, 0x31));
}

// logits[h, j] for 4 heads x 2 keys; heads beyond the last repeat it.
inline void logits_4x2(const SplitArgs& a, const float* queries, int64_t head, const uint16_t* keys,
                       float* logits) {
    const float* q[4];
    for (int64_t i = 0; i < 4; ++i)
        q[i] = queries + (head + i < a.heads ? head + i : a.heads - 1) * kKey;
    __m256 acc[8];  // [head][key]
#pragma GCC unroll 8
    for (auto& x : acc) x = _mm256_setzero_ps();
    for (int64_t d = 0; d < kKey; d += 16) {
        const __m256i first = load(keys + d), second = load(keys + kKey + d);
#pragma GCC unroll 2
        for (int part = 0; part < 2; ++part) {
            const __m256 x = part_of(first, part), y = part_of(second, part);
#pragma GCC unroll 4
            for (int i = 0; i < 4; ++i) {
                const __m256 value = _mm256_loadu_ps(q[i] + d + 8 * part);
                acc[2 * i] = _mm256_fmadd_ps(value, x, acc[2 * i]);
                acc[2 * i + 1] = _mm256_fmadd_ps(value, y, acc[2 * i + 1]);
            }
        }
    }
    alignas(32) float out[8];
    _mm256_store_ps(out, _mm256_mul_ps(sum_lanes(acc), _mm256_set1_ps(a.scale)));
    for (int64_t i = 0; i < 4 && head + i < a.heads; ++i)
        __builtin_memcpy(logits + (head + i) * kSplitKeys, out + 2 * i, 8);
}

// The lanes below n.
inline __m256 lanes_below(int64_t n) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_castsi256_ps(
        _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n < 8 ? n : 8)), lane));
}

// Logits of a head to probabilities relative to the largest, in place.
void softmax_row(const SplitArgs& a, int64_t head, float* row) {
    const __m256 lowest = _mm256_set1_ps(-__builtin_inff());
    __m256 top = lowest;
    for (int64_t j = 0; j < a.count; j += 8)
        top = _mm256_max_ps(
            top, _mm256_blendv_ps(lowest, _mm256_loadu_ps(row + j), lanes_below(a.count - j)));
    alignas(32) float lanes[8];
    _mm256_store_ps(lanes, top);
    float m = lanes[0];
    for (int i = 1; i < 8; ++i) m = lanes[i] > m ? lanes[i] : m;
    __m256 sum = _mm256_setzero_ps();
    for (int64_t j = 0; j < a.count; j += 8) {
        const __m256 e = _mm256_and_ps(
            simd256::exp_ps(_mm256_sub_ps(_mm256_loadu_ps(row + j), _mm256_set1_ps(m))),
            lanes_below(a.count - j));
        sum = _mm256_add_ps(sum, e);
        _mm256_storeu_ps(row + j, e);
    }
    _mm256_store_ps(lanes, sum);
    a.out.m[head] = m;
    a.out.l[head] = ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) +
                    ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

// z of up to 4 heads at 16 dims.
template <int kHeads>
inline void values_tile(const SplitArgs& a, int64_t head, int64_t dim, const uint16_t* keys,
                        const float* probabilities) {
    const float* p = probabilities + head * kSplitKeys;
    __m256 acc[2 * kHeads];
#pragma GCC unroll 8
    for (auto& x : acc) x = _mm256_setzero_ps();
    for (int64_t j = 0; j < a.count; ++j) {
        const __m256i key = load(keys + j * kKey + dim);
        const __m256 x = part_of(key, 0), y = part_of(key, 1);
#pragma GCC unroll 4
        for (int i = 0; i < kHeads; ++i) {
            const __m256 value = _mm256_broadcast_ss(p + i * kSplitKeys + j);
            acc[2 * i] = _mm256_fmadd_ps(value, x, acc[2 * i]);
            acc[2 * i + 1] = _mm256_fmadd_ps(value, y, acc[2 * i + 1]);
        }
    }
#pragma GCC unroll 4
    for (int i = 0; i < kHeads; ++i) {
        float* z = a.out.z + (head + i) * kLatent + dim;
        _mm256_storeu_ps(z, acc[2 * i]);
        _mm256_storeu_ps(z + 8, acc[2 * i + 1]);
    }
}

void split(const SplitArgs& a) {
    auto* keys = static_cast<uint16_t*>(a.scratch);
    auto* logits = reinterpret_cast<float*>(keys + kSplitKeys * kKey);  // [heads, kSplitKeys]
    float* queries = logits + a.heads * kSplitKeys;
    widen_queries(a.q, a.heads, queries);
    for (int64_t first = 0; first < a.count; first += kKeyGroup) {
        gather<widen_record>(a, first, keys);
        for (int64_t h = 0; h < a.heads; h += 4)
            for (int64_t j = first; j < first + kKeyGroup; j += 2)
                logits_4x2(a, queries, h, keys + j * kKey, logits + j);
    }
    for (int64_t h = 0; h < a.heads; ++h) softmax_row(a, h, logits + h * kSplitKeys);
    for (int64_t dim = 0; dim < kLatent; dim += 16) {
        int64_t h = 0;
        for (; h + 4 <= a.heads; h += 4) values_tile<4>(a, h, dim, keys, logits);
        for (; h < a.heads; ++h) values_tile<1>(a, h, dim, keys, logits);
    }
}

// ---- merging ----

inline float exp_scalar(float x) {
    return _mm256_cvtss_f32(simd256::exp_ps(_mm256_set1_ps(x)));
}

void merge(int64_t heads, const Partial& into, const Partial& next) {
    for (int64_t h = 0; h < heads; ++h) {
        const float m = into.m[h] > next.m[h] ? into.m[h] : next.m[h];
        const float old_weight = exp_scalar(into.m[h] - m);
        const float new_weight = exp_scalar(next.m[h] - m);
        into.m[h] = m;
        into.l[h] = into.l[h] * old_weight + next.l[h] * new_weight;
        float* z = into.z + h * kLatent;
        const float* z_next = next.z + h * kLatent;
        for (int64_t d = 0; d < kLatent; d += 8) {
            const __m256 kept = _mm256_mul_ps(_mm256_loadu_ps(z + d), _mm256_set1_ps(old_weight));
            _mm256_storeu_ps(z + d, _mm256_fmadd_ps(_mm256_loadu_ps(z_next + d),
                                                    _mm256_set1_ps(new_weight), kept));
        }
    }
}

void finish(int64_t heads, const Partial& x, uint16_t* out) {
    for (int64_t h = 0; h < heads; ++h) {
        const __m256 r = _mm256_set1_ps(1.0F / x.l[h]);
        for (int64_t d = h * kLatent; d < (h + 1) * kLatent; d += 16) {
            const __m128i even = simd256::f32_to_bf16(_mm256_mul_ps(_mm256_loadu_ps(x.z + d), r));
            const __m128i odd =
                simd256::f32_to_bf16(_mm256_mul_ps(_mm256_loadu_ps(x.z + d + 8), r));
            store(out + d,
                  _mm256_set_m128i(_mm_unpackhi_epi16(even, odd), _mm_unpacklo_epi16(even, odd)));
        }
    }
}

}  // namespace

extern const Kernels kAvx2Kernels = {split, merge, finish};

}  // namespace dsa::attention::cpu
