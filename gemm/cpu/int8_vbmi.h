#pragma once
// Lookup of int8_vnni.h with VBMI.

#include <immintrin.h>

#include <cstdint>

#include "gemm/cpu/int8_tables.h"

namespace dsa::gemm::cpu {
namespace {

// One lookup by the low 7 bits of a code.
template <int kBase>
struct ByPermute {
    __m512i low, high;
    explicit ByPermute(int32_t largest)
        : low(_mm512_load_si512(kInt8MagnitudesByCode<kBase>.magnitude[largest])),
          high(_mm512_load_si512(kInt8MagnitudesByCode<kBase>.magnitude[largest] + 64)) {}
    inline __m512i magnitudes(__m512i codes) const {
        return _mm512_permutex2var_epi8(low, codes, high);
    }
};

}  // namespace
}  // namespace dsa::gemm::cpu
