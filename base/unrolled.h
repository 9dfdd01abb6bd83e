#pragma once
// Loops that are unrolled where they are written, for kernels that keep an array in registers: with
// constant indices the compiler sees its elements as variables of their own from the start. (After
// an unrolling pragma it does not always.)

#include <type_traits>
#include <utility>

namespace dsa::simd {

// For lambdas that are part of a kernel's loop.
#define DSA_INLINE_LAMBDA __attribute__((always_inline))

// f(i) for i in 0 .. kCount - 1, each an integral constant.
template <int kCount, class F>
__attribute__((always_inline)) static inline void unrolled(const F& f) {
    [&]<int... i>(std::integer_sequence<int, i...>) DSA_INLINE_LAMBDA {
        (f(std::integral_constant<int, i>{}), ...);
    }
    (std::make_integer_sequence<int, kCount>{});
}

}  // namespace dsa::simd
