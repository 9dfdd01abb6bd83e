#pragma once
// The logits tile for any vector ISA. V (a type of the ISA file's anonymous namespace) gives:
//   Vec, kVecs              operand vector; how many make up 128 values
//   Element                 type of a widened value
//   widen(codes, n, out)    n codes (a multiple of 128) to Elements
//   load(p), dot(acc, a, b)
// One head against 16 keys at a time: 16 sums in registers, reduced together.

#include <cstdint>

#include "base/avx512.h"
#include "indexer/cpu/kernels.h"

namespace dsa::indexer::cpu {

template <class V>
static inline void logits_row(const LogitsTile& t, int64_t row, const typename V::Element* q,
                              const typename V::Element* keys) {
    const auto* key_scale = reinterpret_cast<const float*>(t.page + kPageKeys * kDim);
    const float* w = t.w + row * t.heads;
    for (int64_t key = 0; key < kPageKeys; key += 16) {
        const typename V::Element* k = keys + key * kDim;
        __m512 sum = _mm512_setzero_ps();
        for (int64_t h = 0; h < t.heads; ++h) {
            typename V::Vec qv[V::kVecs];
#pragma GCC unroll 8
            for (int v = 0; v < V::kVecs; ++v) qv[v] = V::load(q + h * kDim + v * kDim / V::kVecs);
            __m512 acc[16];
#pragma GCC unroll 16
            for (int j = 0; j < 16; ++j) {
                acc[j] = _mm512_setzero_ps();
#pragma GCC unroll 8
                for (int v = 0; v < V::kVecs; ++v)
                    acc[j] = V::dot(acc[j], qv[v], V::load(k + j * kDim + v * kDim / V::kVecs));
            }
            // NaN must survive the ReLU: the second operand of max is returned for it.
            const __m512 relu = _mm512_max_ps(_mm512_setzero_ps(), simd::reduce_16(acc));
            sum = _mm512_fmadd_ps(_mm512_set1_ps(w[h]), relu, sum);
        }
        _mm512_storeu_ps(t.logits + row * t.ld + key,
                         _mm512_mul_ps(sum, _mm512_loadu_ps(key_scale + key)));
    }
}

template <class V>
static inline void logits_tile(const LogitsTile& t) {
    auto* keys = static_cast<typename V::Element*>(t.scratch);
    typename V::Element* q = keys + kPageKeys * kDim;
    V::widen(t.page, kPageKeys * kDim, keys);
    for (int64_t row = 0; row < t.rows; ++row) {
        V::widen(t.q8 + row * t.heads * kDim, t.heads * kDim, q);
        logits_row<V>(t, row, q, keys);
    }
}

}  // namespace dsa::indexer::cpu
