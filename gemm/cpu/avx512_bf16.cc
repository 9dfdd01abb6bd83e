// gemm kernels with VDPBF16PS.

#include <immintrin.h>

#include <cstdint>

#include "gemm/cpu/int8_vbmi.h"
#include "gemm/cpu/int8_vnni.h"
#include "gemm/cpu/kernels.h"
#include "gemm/cpu/lanes_bf16.h"
#include "gemm/cpu/nn_tile.h"
#include "gemm/cpu/nt_tile.h"
#include "gemm/cpu/pack_rows.h"
#include "gemm/cpu/peak512.h"
#include "gemm/cpu/rows_avx512.h"

namespace dsa::gemm::cpu {
namespace {

using V = LanesBf16;

double multiply_peak(int64_t rounds) {
    const __m512i one = _mm512_set1_epi16(0x3f80);
    return multiply_rounds(rounds, one, one, _mm512_setzero_ps(), 64.0,
                           [](__m512 acc, __m512i a, __m512i b) { return V::dot(acc, a, b); });
}

using Int8V = Int8Vnni<ByPermute, 16>;

}  // namespace

extern const Kernels kAvx512Bf16Kernels = {sizeof(V::Element),   kTileRows,
                                           pack_rows<V>,         nt_tile<V, uint8_t>,
                                           nt_tile<V, uint16_t>, nn_tile<V, uint8_t>,
                                           nn_tile<V, uint16_t>, quantize_row,
                                           quantize_row_int8,    silu_mul,
                                           read_lines,           multiply_peak};

extern const Int8Kernels kVbmiInt8Kernels = {sizeof(Int8V::Element), pack_int8_rows<Int8V>,
                                             int8_tile<Int8V>, vnni_peak};

}  // namespace dsa::gemm::cpu
