// int8 products with AVX-512 VNNI, without VBMI: a lookup in 64 bytes is four shuffles.

#include <immintrin.h>

#include "gemm/cpu/int8_vnni.h"
#include "gemm/cpu/pack_rows.h"
#include "gemm/cpu/peak512.h"

namespace dsa::gemm::cpu {
namespace {

// Four lookups of 16 bytes, which memory broadcasts: two of three instructions have a choice of
// units then.
template <int kBase>
struct ByShuffle {
    const uint8_t* table;
    __m512i offset;
    explicit ByShuffle(int32_t largest)
        : table(kInt8XorTables.magnitude[largest]),
          offset(_mm512_set1_epi32(static_cast<int>(kInt8XorTables.offset[largest]))) {}

    inline __m512i magnitudes(__m512i codes) const {
        const __m512i at = _mm512_add_epi8(offset, _mm512_and_si512(codes, _mm512_set1_epi8(0x7f)));
        const __m512i first =
            _mm512_ternarylogic_epi32(part<0>(at), part<1>(at), part<2>(at), kXor);
        return _mm512_ternarylogic_epi32(first, part<3>(at),
                                         _mm512_set1_epi8(static_cast<char>(kBase)), kXor);
    }

  private:
    static constexpr int kXor = 0x96;  // of three

    template <int kPart>
    inline __m512i part(__m512i at) const {
        const auto* entries = reinterpret_cast<const __m128i*>(table) + kPart;
        return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_load_si128(entries)),
                                   _mm512_sub_epi8(at, _mm512_set1_epi8(16 * kPart)));
    }
};

// Measured on Granite Rapids.
struct V : Int8Vnni<ByShuffle, 16> {
    static constexpr int kRows = 12;
    static constexpr int kPanelBlocks = 1;
    static constexpr bool kShifts = false;
};

}  // namespace

extern const Int8Kernels kVnniInt8Kernels = {sizeof(V::Element), pack_int8_rows<V>, int8_tile<V>,
                                             vnni_peak};

}  // namespace dsa::gemm::cpu
