#pragma once
// The split of SplitArgs for any vector ISA. V (a type of the ISA file's anonymous namespace)
// gives:
//   Vec, kStep                  operand vector; values in one
//   Element                     type of a widened key or probability
//   Consts, consts()            constants that widening keeps in registers
//   widen_record(c, record, out)    656 bytes to 576 Elements: bf16(e4m3 * scale), then RoPE
//   widen_queries(q, n, scratch)    n bf16 values as Elements: in scratch, or where they are
//   load(p), dot(acc, a, b)
//   kPair, KeyPair, load_keys(p)    values of kPair keys (rows p, p + kKey) at 32 dims, as two
//                                   vectors
//   broadcast(p)                    kPair probabilities in every lane
//   store_probability(p, v)         16 fp32 to Elements
//   unscramble(&a, &b)              the two accumulators of 32 dims into the order of dims
// Everything is static inline: internal to the ISA file.

#include <cstdint>

#include "attention/cpu/kernels.h"
#include "base/avx512.h"

namespace dsa::attention::cpu {

// Whether a scale of a record only moves exponents, with bf16's range to spare on both sides.
static inline bool power_of_two(float scale) {
    uint32_t bits = 0;
    __builtin_memcpy(&bits, &scale, 4);
    const uint32_t exponent = (bits >> 23) & 0xffU;
    return (bits & 0x807fffffU) == 0 && exponent > 63 && exponent < 191;
}

// Gathers the selected records; rows up to a multiple of 16 are zero.
template <class V>
static inline void gather(const SplitArgs& a, typename V::Element* keys) {
    const typename V::Consts consts = V::consts();
    constexpr int64_t kAhead = 4;
    for (int64_t j = 0; j < a.count; ++j) {
        if (j + kAhead < a.count) {
            const int64_t next = a.indices[j + kAhead];
            const uint8_t* p =
                a.pages[next / kTokensPerPage] + a.page_offset + next % kTokensPerPage * kRecord;
            for (int64_t line = 0; line < kRecord; line += 64) _mm_prefetch(p + line, _MM_HINT_T0);
        }
        const int64_t s = a.indices[j];
        V::widen_record(consts,
                        a.pages[s / kTokensPerPage] + a.page_offset + s % kTokensPerPage * kRecord,
                        keys + j * kKey);
    }
    const int64_t end = (a.count + 15) / 16 * 16;
    for (int64_t i = a.count * kKey; i < end * kKey; ++i) keys[i] = 0;
}

// logits[h, j] for 4 heads x 4 keys; heads beyond the last repeat it.
template <class V>
static inline void logits_4x4(const SplitArgs& a, const typename V::Element* queries, int64_t head,
                              const typename V::Element* keys, float* logits) {
    const typename V::Element* q[4];
    for (int64_t i = 0; i < 4; ++i)
        q[i] = queries + (head + i < a.heads ? head + i : a.heads - 1) * kKey;
    __m512 acc[16];
#pragma GCC unroll 16
    for (auto& x : acc) x = _mm512_setzero_ps();
    for (int64_t d = 0; d < kKey; d += V::kStep) {
        typename V::Vec qv[4];
        typename V::Vec kv[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) qv[i] = V::load(q[i] + d);
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) kv[j] = V::load(keys + j * kKey + d);
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i)
#pragma GCC unroll 4
            for (int j = 0; j < 4; ++j) acc[4 * i + j] = V::dot(acc[4 * i + j], qv[i], kv[j]);
    }
    alignas(64) float out[16];
    _mm512_store_ps(out, _mm512_mul_ps(simd::reduce_16(acc), _mm512_set1_ps(a.scale)));
    for (int64_t i = 0; i < 4 && head + i < a.heads; ++i)
        _mm_storeu_ps(logits + (head + i) * kSplitKeys, _mm_load_ps(out + 4 * i));
}

// Logits of a head to probabilities relative to the largest; in place of them (Elements are not
// wider).
template <class V>
static inline void softmax_row(const SplitArgs& a, int64_t head, float* logits) {
    auto* p = reinterpret_cast<typename V::Element*>(logits);
    const __m512 lowest = _mm512_set1_ps(-__builtin_inff());
    __m512 top = lowest;
    __m512 x[kSplitKeys / 16];
#pragma GCC unroll 8
    for (int64_t j = 0; j < kSplitKeys; j += 16) {
        x[j / 16] = j < a.count
                        ? _mm512_mask_loadu_ps(lowest, simd::mask_16(a.count - j), logits + j)
                        : lowest;
        top = _mm512_max_ps(top, x[j / 16]);
    }
    const float m = _mm512_reduce_max_ps(top);
    __m512 sum = _mm512_setzero_ps();
#pragma GCC unroll 8
    for (int64_t j = 0; j < kSplitKeys; j += 16) {
        if (j >= a.count) break;
        const __m512 e = _mm512_maskz_mov_ps(
            simd::mask_16(a.count - j), simd::exp_ps(_mm512_sub_ps(x[j / 16], _mm512_set1_ps(m))));
        sum = _mm512_add_ps(sum, e);
        V::store_probability(p + j, e);
    }
    a.out.m[head] = m;
    a.out.l[head] = _mm512_reduce_add_ps(sum);
}

// z of up to 8 heads at 32 dims.
template <class V, int kHeads>
static inline void values_tile(const SplitArgs& a, int64_t head, int64_t dim,
                               const typename V::Element* keys, const float* logits) {
    const typename V::Element* p[kHeads];
    for (int i = 0; i < kHeads; ++i)
        p[i] = reinterpret_cast<const typename V::Element*>(logits + (head + i) * kSplitKeys);
    __m512 acc[2 * kHeads];
#pragma GCC unroll 16
    for (auto& x : acc) x = _mm512_setzero_ps();
    for (int64_t j = 0; j < a.count; j += V::kPair) {
        const typename V::KeyPair k = V::load_keys(keys + j * kKey + dim);
#pragma GCC unroll 8
        for (int i = 0; i < kHeads; ++i) {
            const typename V::Vec pv = V::broadcast(p[i] + j);
            acc[2 * i] = V::dot(acc[2 * i], pv, k.first);
            acc[2 * i + 1] = V::dot(acc[2 * i + 1], pv, k.second);
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < kHeads; ++i) {
        V::unscramble(&acc[2 * i], &acc[2 * i + 1]);
        float* z = a.out.z + (head + i) * kLatent + dim;
        _mm512_storeu_ps(z, acc[2 * i]);
        _mm512_storeu_ps(z + 16, acc[2 * i + 1]);
    }
}

template <class V>
static inline void split(const SplitArgs& a) {
    auto* keys = static_cast<typename V::Element*>(a.scratch);
    auto* logits = reinterpret_cast<float*>(keys + kSplitKeys * kKey);  // [heads, kSplitKeys]
    auto* widened = reinterpret_cast<typename V::Element*>(logits + a.heads * kSplitKeys);
    const typename V::Element* q = V::widen_queries(a.q, a.heads * kKey, widened);
    gather<V>(a, keys);
    for (int64_t j = 0; j < a.count; j += 4)
        for (int64_t h = 0; h < a.heads; h += 4)
            logits_4x4<V>(a, q, h, keys + j * kKey, logits + j);
    for (int64_t h = 0; h < a.heads; ++h) softmax_row<V>(a, h, logits + h * kSplitKeys);
    for (int64_t dim = 0; dim < kLatent; dim += 32) {
        int64_t h = 0;
        for (; h + 8 <= a.heads; h += 8) values_tile<V, 8>(a, h, dim, keys, logits);
        for (; h + 4 <= a.heads; h += 4) values_tile<V, 4>(a, h, dim, keys, logits);
        for (; h < a.heads; ++h) values_tile<V, 1>(a, h, dim, keys, logits);
    }
}

// ---- merging
// -------------------------------------------------------------------------------------

static inline float exp_scalar(float x) {
    return _mm512_cvtss_f32(simd::exp_ps(_mm512_set1_ps(x)));
}

static inline void merge(int64_t heads, const Partial& into, const Partial& next) {
    for (int64_t h = 0; h < heads; ++h) {
        const float m = into.m[h] > next.m[h] ? into.m[h] : next.m[h];
        const float old_weight = exp_scalar(into.m[h] - m);
        const float new_weight = exp_scalar(next.m[h] - m);
        into.m[h] = m;
        into.l[h] = into.l[h] * old_weight + next.l[h] * new_weight;
        float* z = into.z + h * kLatent;
        const float* z_next = next.z + h * kLatent;
        for (int64_t d = 0; d < kLatent; d += 16) {
            const __m512 kept = _mm512_mul_ps(_mm512_loadu_ps(z + d), _mm512_set1_ps(old_weight));
            _mm512_storeu_ps(z + d, _mm512_fmadd_ps(_mm512_loadu_ps(z_next + d),
                                                    _mm512_set1_ps(new_weight), kept));
        }
    }
}

static inline void finish(int64_t heads, const Partial& x, uint16_t* out) {
    for (int64_t h = 0; h < heads; ++h) {
        const __m512 r = _mm512_set1_ps(1.0F / x.l[h]);
        for (int64_t d = 0; d < kLatent; d += 16)
            _mm256_storeu_si256(
                reinterpret_cast<__m256i*>(out + h * kLatent + d),
                simd::f32_to_bf16(_mm512_mul_ps(_mm512_loadu_ps(x.z + h * kLatent + d), r)));
    }
}

}  // namespace dsa::attention::cpu
