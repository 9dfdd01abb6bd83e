// Index logits with AVX2 and FMA: lanes are keys, so that no sum crosses lanes; fp32 FMA.

#include <immintrin.h>

#include <cstdint>

#include "base/avx2.h"
#include "indexer/cpu/kernels.h"

namespace dsa::indexer::cpu {
namespace {

constexpr int64_t kLaneKeys = 8;
constexpr int64_t kTileKeys = 2 * kLaneKeys;
constexpr int64_t kPanel = kLaneKeys * kDim;  // values of 8 keys: [128][8]

// e4m3 [8, 128] to fp32 [128][8].
inline void widen_keys(const uint8_t* codes, float* panel) {
    const __m256 scale = _mm256_set1_ps(256.0F);
    for (int64_t k = 0; k < kDim; k += 32) {
        __m256i rows[8];
#pragma GCC unroll 8
        for (int i = 0; i < 8; ++i)
            rows[i] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes + i * kDim + k));
        alignas(32) __m256i fp16[16];
        simd256::e4m3_columns_to_fp16(rows, fp16);
        const auto* halves = reinterpret_cast<const __m128i*>(fp16);
        for (int64_t i = 0; i < 16; ++i)
            for (int64_t half = 0; half < 2; ++half)
                _mm256_storeu_ps(
                    panel + (k + i + 16 * half) * kLaneKeys,
                    _mm256_mul_ps(_mm256_cvtph_ps(_mm_load_si128(halves + 2 * i + half)), scale));
    }
}

// Adds kHeads heads to the weighted sums of 16 keys; a product is one chain over the dims.
template <int kHeads>
inline void add_heads(const float* q, const float* w, const float* panel, __m256* sum) {
    __m256 acc[2 * kHeads];
#pragma GCC unroll 8
    for (auto& x : acc) x = _mm256_setzero_ps();
    for (int64_t k = 0; k < kDim; ++k) {
        const __m256 x = _mm256_loadu_ps(panel + k * kLaneKeys);
        const __m256 y = _mm256_loadu_ps(panel + kPanel + k * kLaneKeys);
#pragma GCC unroll 4
        for (int h = 0; h < kHeads; ++h) {
            const __m256 value = _mm256_broadcast_ss(q + h * kDim + k);
            acc[2 * h] = _mm256_fmadd_ps(value, x, acc[2 * h]);
            acc[2 * h + 1] = _mm256_fmadd_ps(value, y, acc[2 * h + 1]);
        }
    }
#pragma GCC unroll 4
    for (int h = 0; h < kHeads; ++h)
#pragma GCC unroll 2
        for (int i = 0; i < 2; ++i) {
            // NaN must survive the ReLU: the second operand of max is returned for it.
            const __m256 relu = _mm256_max_ps(_mm256_setzero_ps(), acc[2 * h + i]);
            sum[i] = _mm256_fmadd_ps(_mm256_set1_ps(w[h]), relu, sum[i]);
        }
}

void logits(const LogitsTile& t) {
    auto* panel = static_cast<float*>(t.scratch);
    const auto* key_scale = reinterpret_cast<const float*>(t.page + kPageKeys * kDim);
    if (t.next_page != nullptr)
        for (int64_t i = 0; i < kPageKeys * (kDim + 4); i += 64)
            _mm_prefetch(t.next_page + i, _MM_HINT_T0);
    for (int64_t key = 0; key < kPageKeys; key += kLaneKeys)
        widen_keys(t.page + key * kDim, panel + key * kDim);
    for (int64_t row = 0; row < t.rows; ++row) {
        const float* q = static_cast<const float*>(t.q) + row * t.heads * kDim;
        const float* w = t.w + row * t.heads;
        for (int64_t key = 0; key < kPageKeys; key += kTileKeys) {
            __m256 sum[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
            int64_t h = 0;
            for (; h + 4 <= t.heads; h += 4)
                add_heads<4>(q + h * kDim, w + h, panel + key * kDim, sum);
            for (; h < t.heads; ++h) add_heads<1>(q + h * kDim, w + h, panel + key * kDim, sum);
            float* out = t.logits + row * t.ld + key;
            for (int64_t i = 0; i < 2; ++i)
                _mm256_storeu_ps(
                    out + i * kLaneKeys,
                    _mm256_mul_ps(sum[i], _mm256_loadu_ps(key_scale + key + i * kLaneKeys)));
        }
    }
}

void widen_queries(const uint8_t* codes, int64_t n, void* out) {
    for (int64_t i = 0; i < n; i += 8)
        _mm256_storeu_ps(
            static_cast<float*>(out) + i,
            simd256::e4m3_to_f32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(codes + i))));
}

}  // namespace

extern const Kernels kAvx2Kernels = {sizeof(float), widen_queries, logits};

}  // namespace dsa::indexer::cpu
