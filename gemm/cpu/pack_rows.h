#pragma once
// Rows of A as the nt kernels want them (PackRows), by V::pack_row() of nt_tile.h and int8_tile.h.
// Everything is static inline: internal to the ISA file.

#include <cstdint>

#include "gemm/cpu/columns.h"
#include "gemm/cpu/kernels.h"

namespace dsa::gemm::cpu {

template <class V, class ACode>
static inline void pack_rows_of(const PackRows p) {
    const auto* a = static_cast<const ACode*>(p.a);
    auto* out = static_cast<typename V::Element*>(p.out);
    for (int64_t row = 0; row < p.m; ++row, a += p.lda, out += kBlockK) {
        int64_t k = 0;
        typename V::Element* to = out;
        for (; k + kBlockK <= p.k; k += kBlockK, to += p.block_stride)
            V::pack_row(a + k, kBlockK, to);
        if (k < p.k) V::pack_row(a + k, p.k - k, to);
    }
}

template <class V>
static inline void pack_rows(const PackRows& p) {
    if (p.is_e4m3) return pack_rows_of<V, uint8_t>(p);
    pack_rows_of<V, uint16_t>(p);
}

template <class V>
static inline void pack_int8_rows(const PackRows& p) {
    const auto* a = static_cast<const int8_t*>(p.a);
    for (int64_t row = 0; row < p.m; ++row) {
        auto* out = static_cast<typename V::Element*>(p.out) + row * kBlockK;
        int32_t* start = p.start + row;
        for (int64_t k = 0; k < p.k; k += kBlockK) {
            *start = V::pack_row(a + row * p.lda + k, min_of(p.k - k, kBlockK), out);
            out += p.block_stride;
            start += p.block_stride / kBlockK;
        }
    }
}

}  // namespace dsa::gemm::cpu
