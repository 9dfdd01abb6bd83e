#pragma once
// V of nt_tile.h with both operands bf16 (e4m3 widens exactly): 32 values of k a vector, two a
// lane.

#include <immintrin.h>

#include <cstdint>

#include "base/avx512.h"
#include "gemm/cpu/kernels.h"
#include "gemm/cpu/lanes512.h"

#if defined(__AVX512BF16__)

namespace dsa::gemm::cpu {
namespace {

struct LanesBf16 : Lanes512 {
    using Vec = __m512i;
    using Element = uint16_t;
    using State = simd::E4m3ToBf16;
    static constexpr int kStepK = 2;
    static constexpr int kRows = 6;
    static constexpr int kPanelBlocks = 2;
    static constexpr int kFewRows = 16;
    static constexpr int kRowsOfFourGroups = 2;
    static constexpr int64_t kStagedRows = 0;
    // Measured on Zen 4, on Granite Rapids (whose hardware follows columns) and on Zen 5: there not
    // for short columns, nor for the fewest rows of bf16 weights.
    template <class Code>
    static inline bool few_rows_serve(const NtTile& t) {
        if (t.prefetch_into_l2 || t.follows_columns) return t.k >= 512;
        return sizeof(Code) == 1 ? t.k >= 2048 : t.m > 4;
    }
    template <class Code>
    static constexpr int kBlocksOfOneRow = 1;

    static inline State load_state() { return simd::load_e4m3_to_bf16(); }
    static inline Vec load(const uint16_t* p) { return _mm512_loadu_si512(p); }
    static inline void store(uint16_t* p, Vec v) { _mm512_storeu_si512(p, v); }
    static inline Vec load_a(const uint16_t* p, int64_t valid) {
        if (valid >= 32) return _mm512_loadu_si512(p);
        if (valid <= 0) return _mm512_setzero_si512();
        return _mm512_maskz_loadu_epi16(simd::mask_32(valid), p);
    }
    static inline Vec broadcast(const uint16_t* p) { return simd::broadcast_pair(p); }
    static inline Vec broadcast_a(const uint16_t* p) { return broadcast(p); }
    static inline __m512 dot(__m512 acc, Vec a, Vec b) { return simd::dot_bf16(acc, b, a); }
    // With the pair broadcast by the product itself, which g++ does not do; memory can only be the
    // last operand, so dot() has A there as well.
    static inline __m512 dot_at(__m512 acc, const uint16_t* a, Vec b) {
        __m512 sum;
        asm("vdpbf16ps %3%{1to16%}, %2, %0"
            : "=v"(sum)
            : "0"(acc), "v"(b), "m"(*reinterpret_cast<const simd::Dword*>(a)));
        return sum;
    }

    using Lanes512::load_columns;
    DSA_INLINE void load_columns(const uint8_t* b, const int64_t* offset, int64_t valid, Raw* out) {
        simd::load_columns<2>(b, offset, valid, out);
    }

    static inline void pack_row(const uint16_t* a, int64_t valid, uint16_t* out) {
#pragma GCC unroll 4
        for (int64_t i = 0; i < kBlockK; i += 32) store(out + i, load_a(a + i, valid - i));
    }
    static inline void pack_row(const uint8_t* a, int64_t valid, uint16_t* out) {
        const State state = load_state();
        for (int64_t i = 0; i < kBlockK; i += 64) {
            Vec v[2];
            load_row(state, a + i, valid - i, v);
            for (int h = 0; h < 2; ++h) store(out + i + 32 * h, v[h]);
        }
    }
    template <class Code>
    static constexpr float kWidened = 1.0F;

    // A dword of each column.
    template <class Code, class Emit>
    DSA_INLINE void widen_dword(const State& state, Raw x, const Emit& emit) {
        if constexpr (sizeof(Code) == 1) {
            Vec first;
            Vec second;
            simd::e4m3_to_bf16_pairs(state, x, &first, &second);
            emit(0, first);
            emit(1, second);
        } else {
            emit(0, x);
        }
    }
    template <class Code, class Emit>
    DSA_INLINE void widen(const State& state, const Raw* raw, const Emit& emit) {
#pragma GCC unroll 2
        for (int64_t i = 0; i < kRaws<Code>; ++i)
            widen_dword<Code>(state, raw[i],
                              [&](int64_t step, Vec column) { emit(i + step, column); });
    }

    // Half a line of each column at a time stays in registers.
    template <class Code>
    static constexpr int64_t kDirectK = 32 / sizeof(Code);
    static constexpr bool kLinesInParts = true;
    template <class Code>
    static constexpr int64_t kBetweenK = kDirectK<Code>;
    template <class Code>
    static constexpr bool kAsksForLines = true;
    template <class Code, int kGroups, int kBlocks, class Between, class Emit>
    DSA_INLINE void widen_direct(const State& state, const Code* b, const int64_t* offset,
                                 const Between& between, const Emit& emit) {
        between(0);
        simd::unrolled<kGroups * kBlocks>([&](auto c) DSA_INLINE_LAMBDA {
            const auto load = [&](int j) DSA_INLINE_LAMBDA {
                return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(
                    b + c / kGroups * kBlockK + offset[c % kGroups * kLanes + j]));
            };
            simd::transpose_16x8<sizeof(Code) == 1 ? 2 : 4>(
                load, [&](int64_t i, Raw x) DSA_INLINE_LAMBDA {
                    widen_dword<Code>(state, x, [&](int64_t step, Vec column) DSA_INLINE_LAMBDA {
                        emit(c, 2 / static_cast<int64_t>(sizeof(Code)) * i + step, column);
                    });
                });
        });
    }

    // nn: rows k and k + 1 of B, interleaved.
    static inline void load_row(const State& state, const uint8_t* b, int64_t n, Vec* out) {
        simd::e4m3_to_bf16(state, _mm512_maskz_loadu_epi8(simd::mask_64(n > 0 ? n : 0), b), &out[0],
                           &out[1]);
    }
    static inline void load_row(const State&, const uint16_t* b, int64_t n, Vec* out) {
        out[0] = load_a(b, n);
        out[1] = load_a(b + 32, n - 32);
    }
    template <class Code, class Emit>
    DSA_INLINE void widen_rows(const State& state, const Code* b, int64_t ldb, int64_t n,
                               const Emit& emit) {
        alignas(64) static constexpr uint16_t kLow[32] = {
            0, 32, 1, 33, 2,  34, 3,  35, 4,  36, 5,  37, 6,  38, 7,  39,
            8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47};
        const __m512i low = _mm512_load_si512(kLow);
        const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
        Vec even[2];
        Vec odd[2];
        load_row(state, b, n, even);
        load_row(state, b + ldb, n, odd);
        simd::unrolled<4>([&](auto j) DSA_INLINE_LAMBDA {
            emit(j, _mm512_permutex2var_epi16(even[j / 2], j % 2 == 0 ? low : high, odd[j / 2]));
        });
    }
};

}  // namespace
}  // namespace dsa::gemm::cpu

#endif
