// Sparse MLA with AVX-512 F/BW/VL/DQ: keys widened to fp32, fp32 FMA.

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "attention/cpu/kernels.h"
#include "attention/cpu/split.h"
#include "base/avx512.h"

namespace dsa::attention::cpu {
namespace {

struct V {
    using Vec = __m512;
    using Element = float;
    struct Consts {};
    struct KeyPair {
        Vec first, second;
    };
    static constexpr int kStep = 16;
    static constexpr int kPair = 1;

    static inline Consts consts() { return {}; }
    static inline Vec load(const float* p) { return _mm512_loadu_ps(p); }
    static inline const float* widen_queries(const uint16_t* q, int64_t n, float* scratch) {
        for (int64_t i = 0; i < n; i += 16)
            _mm512_storeu_ps(
                scratch + i,
                simd::bf16_to_f32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(q + i))));
        return scratch;
    }
    static inline __m512 dot(__m512 acc, Vec a, Vec b) { return _mm512_fmadd_ps(a, b, acc); }
    static inline Vec broadcast(const float* p) { return _mm512_set1_ps(*p); }
    static inline void store_probability(float* p, __m512 v) { _mm512_storeu_ps(p, v); }
    static inline KeyPair load_keys(const float* p) { return {load(p), load(p + 16)}; }
    static inline void unscramble(__m512*, __m512*) {}

    // The cached latent is bf16(e4m3 * scale), as in every ISA. With a power of two the product is
    // on bf16's grid already (away from the ends of its range) and the rounding is left out.
    static inline void widen_block(const uint8_t* codes, float scale, float* out) {
        const __m512 s = _mm512_set1_ps(scale * 256.0F);
        const bool exact = power_of_two(scale);
        for (int i = 0; i < 128; i += 16) {
            const __m512 x = simd::e4m3_to_f32_over_256(
                _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes + i)));
            const __m512 c = _mm512_mul_ps(x, s);
            _mm512_storeu_ps(out + i, exact ? c : simd::bf16_to_f32(simd::f32_to_bf16(c)));
        }
    }
    static inline void widen_record(const Consts&, const uint8_t* record, float* out) {
        float scale[4];
        std::memcpy(scale, record + kLatent, sizeof(scale));
        for (int b = 0; b < 4; ++b) widen_block(record + 128 * b, scale[b], out + 128 * b);
        const auto* rope = reinterpret_cast<const __m256i*>(record + kLatent + 16);
        for (int64_t i = 0; i < kRope / 16; ++i)
            _mm512_storeu_ps(out + kLatent + 16 * i,
                             simd::bf16_to_f32(_mm256_loadu_si256(rope + i)));
    }
};

}  // namespace

extern const Kernels kAvx512Kernels = {split<V>, merge, finish};

}  // namespace dsa::attention::cpu
