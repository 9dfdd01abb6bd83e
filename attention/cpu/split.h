#pragma once
// The kernels of sparse MLA for any vector ISA. Keys are widened as widened_key.h says, and queries
// are brought into the same order of dims. V (a type of the ISA file's anonymous namespace) gives:
//   Vec                         operand of dot: kDims dims of a query or key
//   Element                     type of a query's value or a probability
//   load(p), dot(acc, a, b)
//   store_query(p, x)           32 bf16 to Elements, in the order of parts
//   key_part(k, i)              part i of the 32 / kDims of 32 bf16 of a key
//   kPair, load_keys(p)         kPair keys (rows p, p + kKey) at 32 dims, as two vectors
//   broadcast(p)                kPair probabilities in every lane
//   store_probability(p, v)     16 fp32 to Elements
//   key_lane(half, lane)        which of 32 bf16 of a key is in that lane of load_keys' vectors
// Everything is static inline: internal to the ISA file.

#include <cstdint>

#include "attention/cpu/gather.h"
#include "attention/cpu/kernels.h"
#include "attention/cpu/widened_key.h"
#include "base/avx512.h"

namespace dsa::attention::cpu {

// Queries as keys lie, in V's Elements.
template <class V>
static inline void widen_queries(const uint16_t* q, int64_t heads, typename V::Element* out) {
    alignas(64) uint16_t order[64];
    for (int i = 0; i < 64; ++i) order[i] = static_cast<uint16_t>(2 * (i % 32) + i / 32);
    const __m512i even = _mm512_load_si512(order);
    const __m512i odd = _mm512_load_si512(order + 32);
    for (int64_t h = 0; h < heads; ++h, q += kKey, out += kKey) {
        for (int64_t d = 0; d < kLatent; d += 64) {
            const __m512i low = _mm512_loadu_si512(q + d);
            const __m512i high = _mm512_loadu_si512(q + d + 32);
            V::store_query(out + d, _mm512_permutex2var_epi16(low, even, high));
            V::store_query(out + d + 32, _mm512_permutex2var_epi16(low, odd, high));
        }
        for (int64_t d = kLatent; d < kKey; d += 32)
            V::store_query(out + d, _mm512_loadu_si512(q + d));
    }
}

// ---- one split ----

// logits[h, j] for 4 heads x 4 keys; heads beyond the last repeat it.
template <class V>
static inline void logits_4x4(const SplitArgs& a, const typename V::Element* queries, int64_t head,
                              const uint16_t* keys, float* logits) {
    const typename V::Element* q[4];
    for (int64_t i = 0; i < 4; ++i)
        q[i] = queries + (head + i < a.heads ? head + i : a.heads - 1) * kKey;
    __m512 acc[16];
#pragma GCC unroll 16
    for (auto& x : acc) x = _mm512_setzero_ps();
    for (int64_t d = 0; d < kKey; d += 32) {
        __m512i k[4];
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) k[j] = _mm512_loadu_si512(keys + j * kKey + d);
#pragma GCC unroll 2
        for (int part = 0; part < 32 / V::kDims; ++part) {
            typename V::Vec qv[4];
#pragma GCC unroll 4
            for (int i = 0; i < 4; ++i) qv[i] = V::load(q[i] + d + part * V::kDims);
#pragma GCC unroll 4
            for (int j = 0; j < 4; ++j) {
                const typename V::Vec kv = V::key_part(k[j], part);
#pragma GCC unroll 4
                for (int i = 0; i < 4; ++i) acc[4 * i + j] = V::dot(acc[4 * i + j], qv[i], kv);
            }
        }
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

// z of up to 8 heads at 32 dims, in the order of load_keys.
template <class V, int kHeads>
static inline void values_tile(const SplitArgs& a, int64_t head, int64_t dim, const uint16_t* keys,
                               const float* logits) {
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
        float* z = a.out.z + (head + i) * kLatent + dim;
        _mm512_storeu_ps(z, acc[2 * i]);
        _mm512_storeu_ps(z + 16, acc[2 * i + 1]);
    }
}

template <class V>
static inline void split(const SplitArgs& a) {
    auto* keys = static_cast<uint16_t*>(a.scratch);
    auto* logits = reinterpret_cast<float*>(keys + kSplitKeys * kKey);  // [heads, kSplitKeys]
    auto* widened = reinterpret_cast<typename V::Element*>(logits + a.heads * kSplitKeys);
    widen_queries<V>(a.q, a.heads, widened);
    for (int64_t first = 0; first < a.count; first += kKeyGroup) {
        gather<widen_record>(a, first, keys);
        for (int64_t h = 0; h < a.heads; h += 4)
            for (int64_t j = first; j < first + kKeyGroup; j += 4)
                logits_4x4<V>(a, widened, h, keys + j * kKey, logits + j);
    }
    for (int64_t h = 0; h < a.heads; ++h) softmax_row<V>(a, h, logits + h * kSplitKeys);
    for (int64_t dim = 0; dim < kLatent; dim += 32) {
        int64_t h = 0;
        for (; h + 8 <= a.heads; h += 8) values_tile<V, 8>(a, h, dim, keys, logits);
        for (; h + 4 <= a.heads; h += 4) values_tile<V, 4>(a, h, dim, keys, logits);
        for (; h < a.heads; ++h) values_tile<V, 1>(a, h, dim, keys, logits);
    }
}

// ---- merging ----

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

// Where the 64 dims of a block of z are.
struct ZOrder {
    alignas(64) uint16_t of_dim[64];
};

template <class V>
static constexpr ZOrder z_order() {
    ZOrder z{};
    for (int i = 0; i < 64; ++i)
        z.of_dim[2 * V::key_lane(i / 16 % 2, i % 16) + i / 32] = static_cast<uint16_t>(i);
    return z;
}

// bf16(x * r) of 32 values.
static inline __m512i finished(const float* x, __m512 r) {
    const __m256i low = simd::f32_to_bf16(_mm512_mul_ps(_mm512_loadu_ps(x), r));
    const __m256i high = simd::f32_to_bf16(_mm512_mul_ps(_mm512_loadu_ps(x + 16), r));
    return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}

template <class V>
static inline void finish(int64_t heads, const Partial& x, uint16_t* out) {
    static constexpr ZOrder kOrder = z_order<V>();
    const __m512i first = _mm512_load_si512(kOrder.of_dim);
    const __m512i second = _mm512_load_si512(kOrder.of_dim + 32);
    for (int64_t h = 0; h < heads; ++h) {
        const __m512 r = _mm512_set1_ps(1.0F / x.l[h]);
        for (int64_t d = h * kLatent; d < (h + 1) * kLatent; d += 64) {
            const __m512i low = finished(x.z + d, r);
            const __m512i high = finished(x.z + d + 32, r);
            _mm512_storeu_si512(out + d, _mm512_permutex2var_epi16(low, first, high));
            _mm512_storeu_si512(out + d + 32, _mm512_permutex2var_epi16(low, second, high));
        }
    }
}

}  // namespace dsa::attention::cpu
