#pragma once
// What V needs to read straight from B (nt_tile.h), by
//   V::load_columns              as it says, in memory
//   V::widened<Code>(raw, i)     value i of the four of k at `raw`
// Chains of products take turns every four values of k. Everything is static inline: internal to
// the ISA file.

#include <cstdint>

#include "base/unrolled.h"
#include "gemm/cpu/kernels.h"

namespace dsa::gemm::cpu {
namespace {

template <class V>
struct WidenedByLoads {
    static constexpr bool kLinesInParts = false;
    template <class Code>
    static constexpr int64_t kDirectK = V::kLoadK;

    template <class Sum, class Element, class Vec>
    static inline Sum dot_at(Sum acc, const Element* a, Vec b) {
        return V::dot(acc, V::broadcast(a), b);
    }

    template <class Code, class State, class Raw, class Emit>
    __attribute__((always_inline)) static inline void widen(const State& /*state*/, const Raw* raw,
                                                            const Emit& emit) {
        simd::unrolled<4>([&](auto i)
                              DSA_INLINE_LAMBDA { emit(i, V::template widened<Code>(raw, i)); });
    }

    // Not inlined: the loop of products keeps its registers (measured).
    template <class Code, class Raw>
    __attribute__((noinline)) static void load_raw(const Code* b, const int64_t* offset, Raw* raw) {
        V::load_columns(b, offset, V::kLoadK, raw);
    }

    template <class Code, int kGroups, int kBlocks, class State, class Between, class Emit>
    __attribute__((always_inline)) static inline void widen_direct(const State& state,
                                                                   const Code* b,
                                                                   const int64_t* offset,
                                                                   const Between& between,
                                                                   const Emit& emit) {
        constexpr int kChains = kGroups * kBlocks;
        constexpr int64_t kRaws = V::template kRaws<Code>;
        typename V::Raw raw[kChains][V::kLoadK / 4 * kRaws];
        for (int c = 0; c < kChains; ++c) {
            const Code* from = b + c / kGroups * kBlockK;
            const int64_t* columns = offset + c % kGroups * V::kLanes;
            if constexpr (kBlocks > 1) {
                V::load_columns(from, columns, V::kLoadK, raw[c]);
            } else {
                load_raw(from, columns, raw[c]);
            }
        }
        asm("" : "+m"(raw));  // in memory, whence values are converted
        for (int64_t k = 0; k < V::kLoadK; k += 4) {
            if (k % V::template kBetweenK<Code> == 0) between(k);
#pragma GCC unroll 4
            for (int c = 0; c < kChains; ++c)
                V::template widen<Code>(state, raw[c] + k / 4 * kRaws,
                                        [&](int64_t step, auto column) DSA_INLINE_LAMBDA {
                                            emit(c, k / V::kStepK + step, column);
                                        });
        }
    }
};

}  // namespace
}  // namespace dsa::gemm::cpu
