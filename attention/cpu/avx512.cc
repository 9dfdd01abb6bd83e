// Sparse MLA with AVX-512 F/BW/VL/DQ: keys in bf16, two to a dword, to fp32 in registers; fp32 FMA.

#include <immintrin.h>

#include <cstdint>

#include "attention/cpu/kernels.h"
#include "attention/cpu/split.h"
#include "base/avx512.h"

namespace dsa::attention::cpu {
namespace {

struct V {
    using Vec = __m512;
    using Element = float;
    struct KeyPair {
        Vec first, second;
    };
    static constexpr int kDims = 16;
    static constexpr int kPair = 1;

    static inline Vec load(const float* p) { return _mm512_loadu_ps(p); }
    static inline Vec key_part(__m512i k, int i) {
        const __m512i odd = _mm512_set1_epi32(static_cast<int>(0xffff0000U));
        return _mm512_castsi512_ps(i == 0 ? _mm512_slli_epi32(k, 16) : _mm512_and_si512(k, odd));
    }
    static inline void store_query(float* p, __m512i x) {
        _mm512_storeu_ps(p, key_part(x, 0));
        _mm512_storeu_ps(p + 16, key_part(x, 1));
    }
    static inline __m512 dot(__m512 acc, Vec a, Vec b) { return _mm512_fmadd_ps(a, b, acc); }
    static inline Vec broadcast(const float* p) { return _mm512_set1_ps(*p); }
    static inline void store_probability(float* p, __m512 v) { _mm512_storeu_ps(p, v); }
    static inline KeyPair load_keys(const uint16_t* p) {
        const __m512i k = _mm512_loadu_si512(p);
        return {key_part(k, 0), key_part(k, 1)};
    }
    static constexpr int key_lane(int half, int lane) { return 2 * lane + half; }
};

}  // namespace

extern const Kernels kAvx512Kernels = {split<V>, merge, finish<V>};

}  // namespace dsa::attention::cpu
