// int8 products with AVX-512 VNNI, without VBMI: a table of 64 bytes is four shuffles.

#include <immintrin.h>

#include "gemm/cpu/int8_vnni.h"
#include "gemm/cpu/pack_rows.h"
#include "gemm/cpu/peak512.h"

namespace dsa::gemm::cpu {
namespace {

// Tables of 64 by largest - code: four shuffles each.
template <int kBase>
struct ByShuffle {
    __m512i table, top;
    explicit ByShuffle(int32_t largest)
        : table(_mm512_load_si512(kInt8Magnitudes<kBase>.magnitude[largest])),
          top(_mm512_set1_epi8(static_cast<char>(largest))) {}

    inline __m512i magnitudes(__m512i codes) const {
        const __m512i below = _mm512_sub_epi8(top, _mm512_and_si512(codes, _mm512_set1_epi8(0x7f)));
        const __m512i r0 = _mm512_shuffle_epi8(_mm512_shuffle_i32x4(table, table, 0x00), below);
        const __m512i r1 = _mm512_shuffle_epi8(_mm512_shuffle_i32x4(table, table, 0x55), below);
        const __m512i r2 = _mm512_shuffle_epi8(_mm512_shuffle_i32x4(table, table, 0xaa), below);
        const __m512i r3 = _mm512_shuffle_epi8(_mm512_shuffle_i32x4(table, table, 0xff), below);
        const __mmask64 bit4 = _mm512_test_epi8_mask(below, _mm512_set1_epi8(16));
        const __mmask64 bit5 = _mm512_test_epi8_mask(below, _mm512_set1_epi8(32));
        return _mm512_mask_blend_epi8(
            _mm512_cmplt_epu8_mask(below, _mm512_set1_epi8(64)),
            _mm512_set1_epi8(static_cast<char>(kBase)),
            _mm512_mask_blend_epi8(bit5, _mm512_mask_blend_epi8(bit4, r0, r1),
                                   _mm512_mask_blend_epi8(bit4, r2, r3)));
    }
};

using V = Int8Vnni<ByShuffle, 16>;

}  // namespace

extern const Int8Kernels kVnniInt8Kernels = {sizeof(V::Element), pack_int8_rows<V>, int8_tile<V>,
                                             vnni_peak};

}  // namespace dsa::gemm::cpu
