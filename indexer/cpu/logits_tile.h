#pragma once
// The logits tile for any vector ISA: lanes are keys, so that no sum crosses lanes. V (a type of
// the ISA file's anonymous namespace) gives:
//   Vec, kStepK             kStepK values of each of 16 keys
//   Element                    type of a widened value
//   widen_keys(codes, panel)   16 keys [16, 128] to [128 / kStepK] Vecs
//   widen(codes, n, out)       n codes (whole vectors) of queries, dims in the panel's order
//   load(p), broadcast(p), dot(acc, a, b)
// One sum is a single chain over the dims, in the panel's order.

#include <cstdint>

#include "base/avx512.h"
#include "indexer/cpu/kernels.h"

namespace dsa::indexer::cpu {

inline constexpr int64_t kLaneKeys = 16;
inline constexpr int64_t kTileKeys = 2 * kLaneKeys;
// Of 16 keys of a page.
inline constexpr int64_t kKeyOffsets[kLaneKeys] = {
    0 * kDim, 1 * kDim, 2 * kDim,  3 * kDim,  4 * kDim,  5 * kDim,  6 * kDim,  7 * kDim,
    8 * kDim, 9 * kDim, 10 * kDim, 11 * kDim, 12 * kDim, 13 * kDim, 14 * kDim, 15 * kDim};

// acc[2 i] and acc[2 i + 1] += row i of kRows times 16 columns each, k ascending: a
// [kRows, k], row stride lda; each column group holds V::kStepK values of k of its 16 columns a
// vector, vectors column_stride * V::kStepK elements apart.
template <class V, int kRows>
static inline void multiply_columns(const typename V::Element* a, int64_t lda,
                                    const typename V::Element* first,
                                    const typename V::Element* second, int64_t column_stride,
                                    int64_t num_k, __m512* acc) {
    for (int64_t k = 0; k < num_k; k += V::kStepK) {
        const typename V::Vec x = V::load(first + k * column_stride);
        const typename V::Vec y = V::load(second + k * column_stride);
#pragma GCC unroll 8
        for (int i = 0; i < kRows; ++i) {
            const typename V::Vec value = V::broadcast(a + i * lda + k);
            acc[2 * i] = V::dot(acc[2 * i], value, x);
            acc[2 * i + 1] = V::dot(acc[2 * i + 1], value, y);
        }
    }
}

// Adds kHeads heads to the weighted sums of 32 keys.
template <class V, int kHeads>
static inline void add_heads(const typename V::Element* q, const float* w,
                             const typename V::Element* panel, __m512* sum) {
    constexpr int64_t kPanel = kLaneKeys * kDim;
    __m512 acc[2 * kHeads];
#pragma GCC unroll 16
    for (auto& x : acc) x = _mm512_setzero_ps();
    multiply_columns<V, kHeads>(q, kDim, panel, panel + kPanel, kLaneKeys, kDim, acc);
#pragma GCC unroll 8
    for (int h = 0; h < kHeads; ++h)
#pragma GCC unroll 2
        for (int i = 0; i < 2; ++i) {
            // NaN must survive the ReLU: the second operand of max is returned for it.
            const __m512 relu = _mm512_max_ps(_mm512_setzero_ps(), acc[2 * h + i]);
            sum[i] = _mm512_fmadd_ps(_mm512_set1_ps(w[h]), relu, sum[i]);
        }
}

template <class V>
static inline void logits_tile(const LogitsTile& t) {
    auto* panel = static_cast<typename V::Element*>(t.scratch);
    const auto* key_scale = reinterpret_cast<const float*>(t.page + kPageKeys * kDim);
    if (t.next_page != nullptr)
        for (int64_t i = 0; i < kPageKeys * (kDim + 4); i += 64)
            _mm_prefetch(t.next_page + i, _MM_HINT_T0);
    for (int64_t key = 0; key < kPageKeys; key += kLaneKeys)
        V::widen_keys(t.page + key * kDim, panel + key * kDim);
    for (int64_t row = 0; row < t.rows; ++row) {
        const auto* q = static_cast<const typename V::Element*>(t.q) + row * t.heads * kDim;
        const float* w = t.w + row * t.heads;
        for (int64_t key = 0; key < kPageKeys; key += kTileKeys) {
            __m512 sum[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
            int64_t h = 0;
            for (; h + 8 <= t.heads; h += 8)
                add_heads<V, 8>(q + h * kDim, w + h, panel + key * kDim, sum);
            for (; h < t.heads; ++h) add_heads<V, 1>(q + h * kDim, w + h, panel + key * kDim, sum);
            float* out = t.logits + row * t.ld + key;
            _mm512_storeu_ps(out, _mm512_mul_ps(sum[0], _mm512_loadu_ps(key_scale + key)));
            _mm512_storeu_ps(out + kLaneKeys,
                             _mm512_mul_ps(sum[1], _mm512_loadu_ps(key_scale + key + kLaneKeys)));
        }
    }
}

template <class V>
static inline void widen_queries(const uint8_t* codes, int64_t n, void* out) {
    V::widen(codes, n, static_cast<typename V::Element*>(out));
}

}  // namespace dsa::indexer::cpu
