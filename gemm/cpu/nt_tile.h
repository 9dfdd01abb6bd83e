#pragma once
// The nt tile of NtTile for any vector ISA. V (a type of the ISA file's anonymous namespace) gives:
//   Vec, kStep                      operand vector; values of k in one
//   Element                         type of the widened panel
//   load_a(p, valid)                bf16 -> Vec; valid values (may be <= 0), 0 behind
//   load_panel(p)                   Element -> Vec
//   dot(acc, a, b)                  multiply-add into fp32 lanes
//   State, load_state()             constants that widening keeps in registers
//   widen(state, b, valid, out)     128 codes of B, or valid <= 128 and 0 behind, to Elements
//   dot_block(state, b, valid, a)   the same widening in registers, and the chain of dots from 0
// Code is uint8_t for e4m3 and uint16_t for bf16. Two forms with the same order of operations: one
// row straight from B (decode: each weight is widened once, in registers), and four rows x four
// columns from a widened panel of 16 columns. Everything is static inline: internal to the ISA
// file.

#include <cstdint>

#include "base/avx512.h"
#include "gemm/cpu/kernels.h"

namespace dsa::gemm::cpu {

static inline float tile_scale(const NtTile& t, int64_t row, int64_t block) {
    const float b = t.b_scale != nullptr ? t.b_scale[block] : 1.0F;
    if (t.a_scale == nullptr) return b;
    return t.a_scale[row * t.a_scale_stride_m + block * t.a_scale_stride_k] * b;
}

// n results of one row from lane `first` of v.
static inline void store_row(const NtTile& t, int64_t row, int64_t col, __m512 v, int64_t n) {
    const __mmask16 mask = simd::mask_16(n);
    if (t.d_is_f32) {
        _mm512_mask_storeu_ps(static_cast<float*>(t.d) + row * t.ldd + col, mask, v);
    } else {
        _mm256_mask_storeu_epi16(static_cast<uint16_t*>(t.d) + row * t.ldd + col, mask,
                                 simd::f32_to_bf16(v));
    }
}

// 4 rows x 4 columns from the lanes of v, row after row.
static inline void store_4x4(const NtTile& t, int64_t row0, int64_t col0, __m512 v) {
    const int64_t rows = t.m - row0 < 4 ? t.m - row0 : 4;
    const int64_t cols = t.n - col0 < 4 ? t.n - col0 : 4;
    alignas(64) float f32[16];
    alignas(32) uint16_t bf16[16];
    const __mmask8 mask = static_cast<__mmask8>((1U << cols) - 1U);
    if (t.d_is_f32) {
        _mm512_store_ps(f32, v);
        for (int64_t i = 0; i < rows; ++i)
            _mm_mask_storeu_ps(static_cast<float*>(t.d) + (row0 + i) * t.ldd + col0, mask,
                               _mm_load_ps(f32 + 4 * i));
        return;
    }
    _mm256_store_si256(reinterpret_cast<__m256i*>(bf16), simd::f32_to_bf16(v));
    for (int64_t i = 0; i < rows; ++i)
        _mm_mask_storeu_epi16(static_cast<uint16_t*>(t.d) + (row0 + i) * t.ldd + col0, mask,
                              _mm_loadl_epi64(reinterpret_cast<const __m128i*>(bf16 + 4 * i)));
}

template <class V, class Code>
static inline void nt_one_row(const NtTile& t) {
    constexpr int kVecs = 128 / V::kStep;
    const auto* b = static_cast<const Code*>(t.b);
    const typename V::State state = V::load_state();
    __m512 total[kTileN];
    for (auto& x : total) x = _mm512_setzero_ps();
    int64_t offset[kTileN];  // columns beyond n repeat the last one; their sums are not stored
    for (int64_t j = 0; j < kTileN; ++j) offset[j] = (j < t.n ? j : t.n - 1) * t.ldb;
    for (int64_t k = 0; k < t.k; k += 128) {
        const int64_t valid = t.k - k < 128 ? t.k - k : 128;
        typename V::Vec av[kVecs];
#pragma GCC unroll 8
        for (int v = 0; v < kVecs; ++v)
            av[v] = V::load_a(t.a + k + v * V::kStep, valid - v * V::kStep);
        const __m512 s = _mm512_set1_ps(tile_scale(t, 0, k / 128));
#pragma GCC unroll 16
        for (int j = 0; j < kTileN; ++j)
            total[j] =
                _mm512_fmadd_ps(V::dot_block(state, b + offset[j] + k, valid, av), s, total[j]);
    }
    store_row(t, 0, 0, simd::reduce_16(total), t.n);
}

template <class V, class Code>
static inline void widen_panel(const NtTile& t, int64_t ldp, typename V::Element* panel) {
    const auto* b = static_cast<const Code*>(t.b);
    const typename V::State state = V::load_state();
    for (int64_t j = 0; j < kTileN; ++j) {
        const Code* row = b + (j < t.n ? j : t.n - 1) * t.ldb;
        for (int64_t k = 0; k < t.k; k += 128)
            V::widen(state, row + k, t.k - k < 128 ? t.k - k : 128, panel + j * ldp + k);
    }
}

// acc += A B^T over one block of 128 in k, 4 rows x 4 columns; kWhole: none of it lies beyond k.
template <class V, bool kWhole>
static inline void nt_block_4x4(const uint16_t* const* a, const typename V::Element* b, int64_t ldp,
                                int64_t valid, __m512* acc) {
#pragma GCC unroll 8
    for (int v = 0; v < 128 / V::kStep; ++v) {
        typename V::Vec av[4];
        typename V::Vec bv[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i)
            av[i] = V::load_a(a[i] + v * V::kStep, kWhole ? V::kStep : valid - v * V::kStep);
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) bv[j] = V::load_panel(b + j * ldp + v * V::kStep);
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i)
#pragma GCC unroll 4
            for (int j = 0; j < 4; ++j) acc[4 * i + j] = V::dot(acc[4 * i + j], av[i], bv[j]);
    }
}

template <class V>
static inline void nt_four_rows(const NtTile& t, const typename V::Element* panel, int64_t ldp,
                                int64_t row0, int64_t col0) {
    const uint16_t* a[4];
    int64_t rows[4];
    for (int i = 0; i < 4; ++i) {
        rows[i] = row0 + i < t.m ? row0 + i : t.m - 1;
        a[i] = t.a + rows[i] * t.lda;
    }
    const typename V::Element* b = panel + col0 * ldp;
    __m512 total[16];
    for (auto& x : total) x = _mm512_setzero_ps();
    for (int64_t k = 0; k < t.k; k += 128) {
        __m512 acc[16];
#pragma GCC unroll 16
        for (auto& x : acc) x = _mm512_setzero_ps();
        const uint16_t* const block[4] = {a[0] + k, a[1] + k, a[2] + k, a[3] + k};
        if (t.k - k >= 128) {
            nt_block_4x4<V, true>(block, b + k, ldp, 128, acc);
        } else {
            nt_block_4x4<V, false>(block, b + k, ldp, t.k - k, acc);
        }
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
            const __m512 s = _mm512_set1_ps(tile_scale(t, rows[i], k / 128));
#pragma GCC unroll 4
            for (int j = 0; j < 4; ++j)
                total[4 * i + j] = _mm512_fmadd_ps(acc[4 * i + j], s, total[4 * i + j]);
        }
    }
    store_4x4(t, row0, col0, simd::reduce_16(total));
}

template <class V, class Code>
static inline void nt_tile(const NtTile& t) {
    if (t.m == 1) {
        nt_one_row<V, Code>(t);
        return;
    }
    const int64_t ldp = (t.k + 127) / 128 * 128;
    auto* panel = static_cast<typename V::Element*>(t.panel);
    widen_panel<V, Code>(t, ldp, panel);
    for (int64_t row = 0; row < t.m; row += 4)
        for (int64_t col = 0; col < t.n; col += 4) nt_four_rows<V>(t, panel, ldp, row, col);
}

}  // namespace dsa::gemm::cpu
