#pragma once
// The nn tile of NnTile for any vector ISA. V gives, beside what nt_tile.h says:
//   widen_rows(state, b, ldb, n, out)
//                    kStepK rows of 64 values of B, as four vectors of lanes
//   broadcast_a(p)   kStepK bf16 values of A in every lane
// Lanes run along n; one chain of multiply-adds an element, k ascending, then the scale.

#include <cstdint>

#include "base/avx512.h"
#include "gemm/cpu/kernels.h"

namespace dsa::gemm::cpu {

template <class V>
static inline void nn_four_rows(const NnTile& t, const typename V::Element* panel, int64_t row0) {
    const uint16_t* a[4];
    for (int i = 0; i < 4; ++i) a[i] = t.a + (row0 + i < t.m ? row0 + i : t.m - 1) * t.lda;
    __m512 acc[16];
#pragma GCC unroll 16
    for (auto& x : acc) x = _mm512_setzero_ps();
    for (int64_t k = 0; k < kNnK; k += V::kStepK) {
        typename V::Vec bv[4];
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) bv[j] = V::load(panel + k * kTileNn + j * V::kStepK * 16);
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
            const typename V::Vec av = V::broadcast_a(a[i] + k);
#pragma GCC unroll 4
            for (int j = 0; j < 4; ++j) acc[4 * i + j] = V::dot(acc[4 * i + j], av, bv[j]);
        }
    }
    const __m512 scale = _mm512_set1_ps(t.b_scale);
    for (int64_t i = 0; i < 4 && row0 + i < t.m; ++i)
        for (int64_t j = 0; j < 4 && 16 * j < t.n; ++j)
            _mm256_mask_storeu_epi16(t.d + (row0 + i) * t.ldd + 16 * j, simd::mask_16(t.n - 16 * j),
                                     simd::f32_to_bf16(_mm512_mul_ps(acc[4 * i + j], scale)));
}

template <class V, class Code>
static inline void nn_tile(const NnTile& t) {
    const auto* b = static_cast<const Code*>(t.b);
    auto* panel = static_cast<typename V::Element*>(t.panel);
    const typename V::State state = V::load_state();
    for (int64_t k = 0; k < kNnK; k += V::kStepK)
        V::widen_rows(state, b + k * t.ldb, t.ldb, t.n, panel + k * kTileNn);
    for (int64_t row = 0; row < t.m; row += 4) nn_four_rows<V>(t, panel, row);
}

}  // namespace dsa::gemm::cpu
