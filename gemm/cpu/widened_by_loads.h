#pragma once
// V::widen_direct (nt_tile.h) by V::load_columns and V::widen: what is loaded goes through memory,
// and chains of products take turns every four values of k. Everything is static inline: internal
// to the ISA file.

#include <cstdint>

#include "base/unrolled.h"
#include "gemm/cpu/kernels.h"

namespace dsa::gemm::cpu {
namespace {

struct WidenedByLoads {
    static constexpr bool kLinesInParts = false;
    // Not inlined: the loop of products keeps its registers (measured).
    template <class V, class Code>
    __attribute__((noinline)) static void load_raw(const Code* b, const int64_t* offset,
                                                   typename V::Raw* raw) {
        V::load_columns(b, offset, V::kLoadK, raw);
    }

    template <class V, class Code, int kGroups, int kBlocks, class Between, class Emit>
    __attribute__((always_inline)) static inline void widen_direct(const typename V::State& state,
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
                load_raw<V>(from, columns, raw[c]);
            }
        }
        asm("" : "+m"(raw));  // in memory, whence values are converted
        for (int64_t k = 0; k < V::kLoadK; k += 4) {
            if (k % 16 == 0) between(16);
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
