#pragma once
// The nt tile of NtTile for any vector ISA: lanes are 16 columns of B, so that no sum crosses
// lanes. V (a type of the ISA file's anonymous namespace) gives:
//   Vec, kStepK                  kStepK values of k for each of 16 columns
//   Element                      type of a widened value
//   State, load_state()          constants that widening keeps in registers
//   widen_row<Code>(a, k, out)   a row of A to Elements, zeros up to a multiple of 128, in the
//   order
//                                of k that widen_columns() has for this Code
//   widen_columns(state, b, offset, valid, emit)   64 values of k of the 16 columns at b +
//   offset[j],
//                                or valid < 64 and zeros: emit(step, Vec) for every step
//   load(p), broadcast(p), dot(acc, a, b)
// Code is uint8_t for e4m3 and uint16_t for bf16. Two forms with the same order of operations: one
// row straight from B (decode: each weight is widened once, in registers), and eight rows x 32
// columns from a widened panel of B. Everything is static inline: internal to the ISA file.

#include <cstdint>

#include "base/avx512.h"
#include "gemm/cpu/kernels.h"

namespace dsa::gemm::cpu {

inline constexpr int64_t kChain = 64;  // values of k in one chain of multiply-adds
inline constexpr int64_t kLanes = 16;

static inline float tile_scale(const NtTile& t, int64_t row, int64_t block) {
    const float b = t.b_scale != nullptr ? t.b_scale[block] : 1.0F;
    if (t.a_scale == nullptr) return b;
    return t.a_scale[row * t.a_scale_stride_m + block * t.a_scale_stride_k] * b;
}

// The columns of one row that a group of lanes has, from column `col`.
static inline void store_row(const NtTile& t, int64_t row, int64_t col, __m512 v) {
    if (col >= t.n) return;
    const __mmask16 mask = simd::mask_16(t.n - col);
    if (t.d_is_f32) {
        _mm512_mask_storeu_ps(static_cast<float*>(t.d) + row * t.ldd + col, mask, v);
    } else {
        _mm256_mask_storeu_epi16(static_cast<uint16_t*>(t.d) + row * t.ldd + col, mask,
                                 simd::f32_to_bf16(v));
    }
}

// Where the columns of lanes start; columns beyond n repeat the last one, and are not stored.
static inline void column_offsets(const NtTile& t, int64_t col, int64_t* offset) {
    for (int64_t j = 0; j < kLanes; ++j) offset[j] = (col + j < t.n ? col + j : t.n - 1) * t.ldb;
}

// Bytes from one tile of 16 columns to what should be on its way when the tile is read: the next
// tile where columns are short, else further down the same columns.
static inline int64_t prefetch_distance(int64_t column_bytes) {
    constexpr int64_t kFar = 4096;
    return column_bytes <= kFar / 4 ? kLanes * column_bytes : kFar;
}

template <class V, class Code>
static inline void nt_one_row(const NtTile& t, const typename V::Element* a) {
    const auto* b = static_cast<const Code*>(t.b);
    const typename V::State state = V::load_state();
    const int64_t ahead = prefetch_distance(t.ldb * static_cast<int64_t>(sizeof(Code)));
    for (int64_t col = 0; col < t.n; col += kLanes) {
        int64_t offset[kLanes];
        column_offsets(t, col, offset);
        __m512 total = _mm512_setzero_ps();
        for (int64_t k = 0; k < t.k; k += kChain) {
            for (int64_t j = 0; j < kLanes; ++j)
                for (size_t line = 0; line < sizeof(Code); ++line)
                    _mm_prefetch(
                        reinterpret_cast<const uint8_t*>(b + k + offset[j]) + ahead + 64 * line,
                        _MM_HINT_T0);
            __m512 acc = _mm512_setzero_ps();
            V::widen_columns(state, b + k, offset, t.k - k, [&](int64_t step, auto column) {
                acc = V::dot(acc, V::broadcast(a + k + step * V::kStepK), column);
            });
            total = _mm512_fmadd_ps(acc, _mm512_set1_ps(tile_scale(t, 0, k / 128)), total);
        }
        store_row(t, 0, col, total);
    }
}

// B as [steps][2 groups of 16 columns] vectors.
template <class V, class Code>
static inline void widen_panel(const NtTile& t, typename V::Element* panel) {
    const auto* b = static_cast<const Code*>(t.b);
    const typename V::State state = V::load_state();
    for (int64_t col = 0; col < kTileN; col += kLanes) {
        int64_t offset[kLanes];
        column_offsets(t, col, offset);
        for (int64_t k = 0; k < t.k; k += kChain)
            V::widen_columns(state, b + k, offset, t.k - k, [&](int64_t step, auto column) {
                V::store(panel + (k + step * V::kStepK) * kTileN + col * V::kStepK, column);
            });
    }
}

// kRows rows from row0 x kTileN columns; a: kRows widened rows.
template <class V, int kRows>
static inline void nt_rows(const NtTile& t, const typename V::Element* a, int64_t lda,
                           const typename V::Element* panel, int64_t row0) {
    __m512 total[2 * kRows];
#pragma GCC unroll 16
    for (auto& x : total) x = _mm512_setzero_ps();
    for (int64_t k = 0; k < t.k; k += kChain) {
        __m512 acc[2 * kRows];
#pragma GCC unroll 16
        for (auto& x : acc) x = _mm512_setzero_ps();
        simd::multiply_columns<V, kRows>(a + k, lda, panel + k * kTileN,
                                         panel + k * kTileN + kLanes * V::kStepK, kTileN, kChain,
                                         acc);
#pragma GCC unroll 8
        for (int i = 0; i < kRows; ++i) {
            const __m512 s = _mm512_set1_ps(tile_scale(t, row0 + i, k / 128));
            total[2 * i] = _mm512_fmadd_ps(acc[2 * i], s, total[2 * i]);
            total[2 * i + 1] = _mm512_fmadd_ps(acc[2 * i + 1], s, total[2 * i + 1]);
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
        store_row(t, row0 + i, 0, total[2 * i]);
        store_row(t, row0 + i, kLanes, total[2 * i + 1]);
    }
}

// As nt_rows for a number of rows, at most kRows, that is known at run time.
template <class V, int kRows>
static inline void nt_some_rows(const NtTile& t, const typename V::Element* a, int64_t lda,
                                const typename V::Element* panel, int64_t row0, int64_t rows) {
    if (rows == kRows) return nt_rows<V, kRows>(t, a, lda, panel, row0);
    if constexpr (kRows > 1) nt_some_rows<V, kRows - 1>(t, a, lda, panel, row0, rows);
}

template <class V, class Code>
static inline void nt_tile(const NtTile& t) {
    const int64_t lda = (t.k + 127) / 128 * 128;
    auto* a = static_cast<typename V::Element*>(t.panel);  // kRowsTogether rows
    typename V::Element* panel = a + kRowsTogether * lda;
    if (t.m == 1) {
        V::template widen_row<Code>(t.a, t.k, a);
        nt_one_row<V, Code>(t, a);
        return;
    }
    widen_panel<V, Code>(t, panel);
    for (int64_t row = 0; row < t.m; row += kRowsTogether) {
        const int64_t rows = t.m - row < kRowsTogether ? t.m - row : kRowsTogether;
        for (int64_t i = 0; i < rows; ++i)
            V::template widen_row<Code>(t.a + (row + i) * t.lda, t.k, a + i * lda);
        nt_some_rows<V, kRowsTogether>(t, a, lda, panel, row, rows);
    }
}

}  // namespace dsa::gemm::cpu
