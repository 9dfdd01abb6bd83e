// gemm kernels with AVX2, FMA and F16C: fp32 FMA, 8 columns a vector; int8 products as 16-bit
// pairs.

#include <immintrin.h>

#include <cstdint>

#include "base/avx2.h"
#include "gemm/cpu/int8_tables.h"
#include "gemm/cpu/int8_tile.h"
#include "gemm/cpu/kernels.h"
#include "gemm/cpu/nt_tile.h"
#include "gemm/cpu/rows_avx2.h"

namespace dsa::gemm::cpu {
namespace {

using avx2::load_bf16;

// What both share: sums of 8 columns.
struct Lanes256 {
    using Sum = __m256;
    static constexpr int64_t kLanes = 8;
    static constexpr int kRows = 6;
    static constexpr int kFewRows = 1;

    static inline __m256 zero() { return _mm256_setzero_ps(); }
    static inline __m256 set1(float x) { return _mm256_set1_ps(x); }
    static inline __m256 load_sum(const float* p) { return _mm256_loadu_ps(p); }
    static inline void store_sum(float* p, __m256 v) { _mm256_storeu_ps(p, v); }
    static inline __m256 mul(__m256 a, __m256 b) { return _mm256_mul_ps(a, b); }
    static inline __m256 fma(__m256 a, __m256 b, __m256 c) { return _mm256_fmadd_ps(a, b, c); }

    static inline void store_columns(float* d, int64_t n, __m256 x, __m256 y) {
        if (n >= 16) {
            _mm256_storeu_ps(d, x);
            _mm256_storeu_ps(d + 8, y);
            return;
        }
        alignas(32) float all[16];
        _mm256_store_ps(all, x);
        _mm256_store_ps(all + 8, y);
        __builtin_memcpy(d, all, static_cast<size_t>(n) * 4);
    }
    static inline void store_columns(uint16_t* d, int64_t n, __m256 x, __m256 y) {
        const __m256i both = _mm256_set_m128i(simd256::f32_to_bf16(y), simd256::f32_to_bf16(x));
        if (n >= 16) {
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(d), both);
            return;
        }
        alignas(32) uint16_t all[16];
        _mm256_store_si256(reinterpret_cast<__m256i*>(all), both);
        __builtin_memcpy(d, all, static_cast<size_t>(n) * 2);
    }
};

struct V : Lanes256 {
    using Vec = __m256;
    using Element = float;
    using Raw = __m256i;
    struct State {};
    static constexpr int kStepK = 1;
    static constexpr int64_t kLoadK = 32;
    template <class Code>
    static constexpr int64_t kRaws = 2;
    template <class Code>
    static constexpr float kWidened = sizeof(Code) == 1 ? 256.0F : 1.0F;

    static inline State load_state() { return {}; }
    static inline Vec load(const float* p) { return _mm256_loadu_ps(p); }
    static inline void store(float* p, Vec v) { _mm256_storeu_ps(p, v); }
    static inline Vec broadcast(const float* p) { return _mm256_broadcast_ss(p); }
    static inline __m256 dot(__m256 acc, Vec a, Vec b) { return _mm256_fmadd_ps(a, b, acc); }

    // 8 values, those of `valid` that there are.
    static inline Vec widen_8(const uint16_t* p, int64_t valid) {
        return load_bf16(p, valid > 0 ? valid : 0);
    }
    static inline Vec widen_8(const uint8_t* p, int64_t valid) {
        if (valid >= 8)
            return simd256::e4m3_to_f32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
        return simd256::e4m3_to_f32(_mm256_castsi256_si128(simd256::load_bytes(p, valid)));
    }
    // In the order of k of widen(): the two halves of each 32 in turn.
    template <class Code>
    static inline void pack_row(const Code* a, int64_t valid, float* out) {
        for (int64_t i = 0; i < kBlockK; i += 32)
            for (int64_t j = i; j < i + 16; j += 8, out += 16) {
                const Vec x = widen_8(a + j, valid - j);
                const Vec y = widen_8(a + j + 16, valid - j - 16);
                const Vec low = _mm256_unpacklo_ps(x, y);
                const Vec high = _mm256_unpackhi_ps(x, y);
                store(out, _mm256_permute2f128_ps(low, high, 0x20));
                store(out + 8, _mm256_permute2f128_ps(low, high, 0x31));
            }
    }

    // fp16 values less by 2^8, one vector for (x0, x16) and (x1, x17) each of every two of k.
    static inline void load_columns(const uint8_t* b, const int64_t* offset, int64_t valid,
                                    Raw* out) {
        __m256i codes[8];
        for (int j = 0; j < 8; ++j) codes[j] = simd256::load_bytes(b + offset[j], valid);
        simd256::e4m3_columns_to_fp16(codes, out);
    }
    // Columns' (x0, x1), then (x16, x17), and so on.
    static inline void load_columns(const uint16_t* b, const int64_t* offset, int64_t valid,
                                    Raw* out) {
        for (int half = 0; half < 2; ++half) {
            Raw pairs[8];
            for (int j = 0; j < 8; ++j)
                pairs[j] = simd256::load_bytes(b + offset[j] + 16 * half, 2 * (valid - 16 * half));
            simd256::transpose_8x8(pairs);
            for (int j = 0; j < 8; ++j) out[2 * j + half] = pairs[j];
        }
    }
    template <class Code, class Emit>
    static inline void widen(const State&, const Raw* raw, const Emit& emit) {
        if constexpr (sizeof(Code) == 1) {
            // From memory: half the cost of a conversion from a register.
            const auto* fp16 = reinterpret_cast<const __m128i*>(raw);
#pragma GCC unroll 4
            for (int i = 0; i < 4; ++i) emit(i, _mm256_cvtph_ps(_mm_load_si128(fp16 + i)));
        } else {
            const __m256i high = _mm256_set1_epi32(static_cast<int>(0xffff0000U));
#pragma GCC unroll 2
            for (int half = 0; half < 2; ++half)
                emit(half, _mm256_castsi256_ps(_mm256_slli_epi32(raw[half], 16)));
#pragma GCC unroll 2
            for (int half = 0; half < 2; ++half)
                emit(2 + half, _mm256_castsi256_ps(_mm256_and_si256(raw[half], high)));
        }
    }
};

// Rows of B lie along n already: a panel of 16 columns is a widened copy.
template <class Code>
void nn(const NnTile& t) {
    auto* panel = static_cast<float*>(t.panel);
    float* a = panel + kNnK * kTileNn;
    float* c = a + kTileRows * kBlockK;
    for (int64_t i = 0; i < t.m; ++i) V::pack_row(t.a + i * t.lda, kBlockK, a + i * kBlockK);
    float scale[kTileRows];
    for (int64_t i = 0; i < t.m; ++i) scale[i] = t.b_scale;
    for (int64_t col = 0; col < t.n; col += 16) {
        for (int64_t k = 0; k < kNnK; ++k) {
            const int64_t row = k / 32 * 32 + k % 2 * 16 + k % 32 / 2;  // pack_row's order
            const auto* b = static_cast<const Code*>(t.b) + row * t.ldb + col;
            V::store(panel + 16 * k, V::widen_8(b, t.n - col));
            V::store(panel + 16 * k + 8, V::widen_8(b + 8, t.n - col - 8));
        }
        for (int64_t i = 0; i < t.m; i += V::kRows)
            multiply_some<V, V::kRows>(min_of(V::kRows, t.m - i), a + i * kBlockK, panel, kBlockK,
                                       scale + i, true, c + 16 * i);
        for (int64_t i = 0; i < t.m; ++i)
            V::store_columns(t.d + i * t.ldd + col, t.n - col, V::load_sum(c + 16 * i),
                             V::load_sum(c + 16 * i + 8));
    }
}

// int8: pairs of 16-bit values, (x0, x2) and (x1, x3) of each four of k.
struct Int8V : Lanes256 {
    using Vec = __m256i;
    // The type that the instruction has: g++ 12 keeps an array of __m256i in memory.
    typedef int IntSum __attribute__((vector_size(32)));
    using Element = int16_t;
    static constexpr int kStepK = 2;
    static constexpr int64_t kColumnsFirstRows = 0;  // measured: no gain
    static constexpr bool kHasOneRow = false;

    static inline Vec load(const int16_t* p) {
        return _mm256_load_si256(reinterpret_cast<const __m256i*>(p));
    }
    static inline Vec broadcast(const int16_t* p) {
        int32_t pair = 0;
        __builtin_memcpy(&pair, p, 4);
        return _mm256_set1_epi32(pair);
    }
    static inline IntSum load_int(const int32_t* p) {
        return IntSum(_mm256_load_si256(reinterpret_cast<const __m256i*>(p)));
    }
    static inline IntSum zero_int() { return IntSum{}; }
    static inline __m256 to_float(IntSum x) { return _mm256_cvtepi32_ps(__m256i(x)); }
    static inline IntSum dot(IntSum acc, Vec a, Vec b) {
        return acc + IntSum(_mm256_madd_epi16(a, b));
    }

    // 32 int8 values to their pairs, 16 dwords.
    static inline void split(__m256i bytes, __m256i* even, __m256i* odd) {
        *even = _mm256_srai_epi16(_mm256_slli_epi16(bytes, 8), 8);
        *odd = _mm256_srai_epi16(bytes, 8);
    }
    static inline void pack_row(const int8_t* a, int64_t valid, int16_t* out) {
        for (int64_t i = 0; i < kBlockK; i += 32) {
            __m256i even;
            __m256i odd;
            split(simd256::load_bytes(a + i, valid - i), &even, &odd);
            // dwords in turn: even pair, odd pair of each four
            const __m256i low = _mm256_unpacklo_epi32(even, odd);
            const __m256i high = _mm256_unpackhi_epi32(even, odd);
            auto* to = reinterpret_cast<__m256i*>(out + i);
            _mm256_storeu_si256(to, _mm256_permute2x128_si256(low, high, 0x20));
            _mm256_storeu_si256(to + 1, _mm256_permute2x128_si256(low, high, 0x31));
        }
    }

    // Largest magnitude code of a row of 128.
    static inline int largest(const __m256i* codes) {
        const __m256i magnitude = _mm256_set1_epi8(0x7f);
        __m256i v = _mm256_and_si256(codes[0], magnitude);
        for (int i = 1; i < 4; ++i) v = _mm256_max_epu8(v, _mm256_and_si256(codes[i], magnitude));
        __m128i x = _mm_max_epu8(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
        x = _mm_max_epu8(x, _mm_srli_si128(x, 8));
        x = _mm_max_epu8(x, _mm_srli_epi64(x, 32));
        x = _mm_max_epu8(x, _mm_srli_epi32(x, 16));
        return _mm_cvtsi128_si32(_mm_max_epu8(x, _mm_srli_epi32(x, 8))) & 0xff;
    }

    // Signed values of 32 codes whose largest is `top`.
    static inline __m256i requantised(const uint8_t* table, __m256i top, __m256i codes) {
        const __m256i below = _mm256_sub_epi8(top, _mm256_and_si256(codes, _mm256_set1_epi8(0x7f)));
        __m256i q = _mm256_setzero_si256();
        for (int part = 0; part < 4; ++part) {
            const __m256i entries = _mm256_broadcastsi128_si256(
                _mm_load_si128(reinterpret_cast<const __m128i*>(table) + part));
            // Bytes outside of 16 * part .. + 15 get the top bit, for which the shuffle gives 0.
            const __m256i index =
                _mm256_sub_epi8(below, _mm256_set1_epi8(static_cast<char>(16 * part)));
            const __m256i outside = _mm256_cmpgt_epi8(
                index, _mm256_set1_epi8(15));  // below it they are negative already
            q = _mm256_or_si256(q, _mm256_shuffle_epi8(entries, _mm256_or_si256(index, outside)));
        }
        // The sign of codes; +0 must not turn q into 0, so any positive value stands for it.
        return _mm256_sign_epi8(q, _mm256_or_si256(codes, _mm256_set1_epi8(1)));
    }

    static inline void requantise(const uint8_t* b, const int64_t* offset, int64_t valid,
                                  NextPanel<1>& next, int16_t* panel, float* unit, int32_t* start) {
        constexpr int64_t kVec = kLanes * kStepK;
        for (int g = 0; g < 2; ++g, offset += 8, panel += kVec, unit += 8, start += 8) {
            __m256i q[4][8];
            for (int j = 0; j < 8; ++j) {
                __m256i codes[4];
                for (int i = 0; i < 4; ++i)
                    codes[i] = simd256::load_bytes(b + offset[j] + 32 * i, valid - 32 * i);
                next.column();
                next.column();
                const int top = largest(codes);
                unit[j] = kInt8Tables.unit[top];
                start[j] = 0;
                const __m256i tops = _mm256_set1_epi8(static_cast<char>(top));
                for (int i = 0; i < 4; ++i)
                    q[i][j] = requantised(kInt8Tables.magnitude[top], tops, codes[i]);
            }
            int16_t* out = panel;
            for (int i = 0; i < 4; ++i) {
                simd256::transpose_8x8(q[i]);
                for (int s = 0; s < 8; ++s, out += 4 * kVec) {
                    __m256i even;
                    __m256i odd;
                    split(q[i][s], &even, &odd);
                    _mm256_store_si256(reinterpret_cast<__m256i*>(out), even);
                    _mm256_store_si256(reinterpret_cast<__m256i*>(out + 2 * kVec), odd);
                }
            }
        }
    }
};

uint64_t read(const uint8_t* p, int64_t n) {
    __m256i sum[4] = {};
    for (int64_t i = 0; i < n; i += 64) {
        _mm_prefetch(p + i + 4096, _MM_HINT_T0);
        for (int j = 0; j < 2; ++j)
            sum[(i / 32 + j) % 4] = _mm256_add_epi64(
                sum[(i / 32 + j) % 4],
                _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + i + 32 * j)));
    }
    alignas(32) uint64_t lanes[4];
    _mm256_store_si256(
        reinterpret_cast<__m256i*>(lanes),
        _mm256_add_epi64(_mm256_add_epi64(sum[0], sum[1]), _mm256_add_epi64(sum[2], sum[3])));
    return lanes[0] + lanes[1] + lanes[2] + lanes[3];
}

double multiply_peak(int64_t rounds) {
    __m256 acc[12];
#pragma GCC unroll 12
    for (auto& x : acc) {
        x = _mm256_setzero_ps();
        asm volatile("" : "+x"(x));  // or the compiler would see 12 equal chains
    }
    const __m256 a = _mm256_set1_ps(1.0F);
    for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 12
        for (auto& x : acc) x = _mm256_fmadd_ps(a, a, x);
    }
#pragma GCC unroll 12
    for (auto& x : acc) asm volatile("" ::"x"(x));
    return static_cast<double>(rounds) * 12.0 * 16.0;
}

double int8_peak(int64_t rounds) {
    Int8V::IntSum acc[10];
    __m256i a = _mm256_set1_epi16(1);
#pragma GCC unroll 10
    for (auto& x : acc) {
        x = Int8V::zero_int();
        asm volatile("" : "+x"(x));
    }
    for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 10
        for (auto& x : acc) {
            asm volatile("" : "+x"(a));  // the product must be computed each time
            x = Int8V::dot(x, a, a);
        }
    }
#pragma GCC unroll 10
    for (auto& x : acc) asm volatile("" ::"x"(x));
    return static_cast<double>(rounds) * 10.0 * 32.0;
}

}  // namespace

extern const Kernels kAvx2Kernels = {
    sizeof(V::Element), pack_rows<V>, nt_tile<V, uint8_t>, nt_tile<V, uint16_t>,
    nn<uint8_t>,        nn<uint16_t>, avx2::quantize_row,  avx2::quantize_row_int8,
    avx2::silu_mul,     read,         multiply_peak};

extern const Int8Kernels kAvx2Int8Kernels = {sizeof(Int8V::Element), pack_int8_rows<Int8V>,
                                             int8_tile<Int8V>, int8_peak};

}  // namespace dsa::gemm::cpu
