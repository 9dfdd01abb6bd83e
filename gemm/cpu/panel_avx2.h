#pragma once
// The loops of fp32 products of the AVX2 kernels, 4 to 6 rows with two vectors of columns. In
// assembly: they need all 16 registers, and g++ 12 moves or spills sums where it unrolls such a
// loop (down to 0.6 of the speed). Four steps a turn leave more of a shared core to the products.

#include <immintrin.h>

#include <cstdint>

#include "gemm/cpu/kernels.h"

namespace dsa::gemm::cpu {
namespace {

static_assert(kBlockK == 128);  // rows lie 128 values apart

// clang-format off

// Operands 0 to 11 are the sums, x and y of each row; the row's value and the two vectors of the
// panel meet in ymm13 to ymm15. b is 128 bytes ahead, so that its offsets are short.
#define DSA_ROW(row, step, x, y)                                \
    "vbroadcastss 512*" #row "+4*" #step "(%[a]), %%ymm15\n"    \
    "vfmadd231ps %%ymm13, %%ymm15, %" #x "\n"                   \
    "vfmadd231ps %%ymm14, %%ymm15, %" #y "\n"
#define DSA_FOUR_ROWS(step)                                     \
    "vmovups 64*" #step "-128(%[b]), %%ymm13\n"                 \
    "vmovups 64*" #step "-96(%[b]), %%ymm14\n"                  \
    DSA_ROW(0, step, 0, 1) DSA_ROW(1, step, 2, 3)               \
    DSA_ROW(2, step, 4, 5) DSA_ROW(3, step, 6, 7)
#define DSA_FIVE_ROWS(step) DSA_FOUR_ROWS(step) DSA_ROW(4, step, 8, 9)
#define DSA_SIX_ROWS(step) DSA_FIVE_ROWS(step) DSA_ROW(5, step, 10, 11)

#define DSA_FOUR_SUMS                                           \
    "+x"(acc[0]), "+x"(acc[1]), "+x"(acc[2]), "+x"(acc[3]),     \
    "+x"(acc[4]), "+x"(acc[5]), "+x"(acc[6]), "+x"(acc[7])
#define DSA_FIVE_SUMS DSA_FOUR_SUMS, "+x"(acc[8]), "+x"(acc[9])
#define DSA_SIX_SUMS DSA_FIVE_SUMS, "+x"(acc[10]), "+x"(acc[11])

// NOLINTBEGIN(bugprone-macro-parentheses): a list of operands
#define DSA_LOOP(ROWS, SUMS, bytes_of_four)                     \
    asm volatile(                                               \
        "mov %[next], %%r11\n"                                  \
        ".p2align 6\n"                                          \
        "1:\n"                                                  \
        ROWS(0) ROWS(1) ROWS(2) ROWS(3)                         \
        "prefetcht0 (%%r11)\n"                                  \
        "prefetcht0 64(%%r11)\n"                                \
        "add $" #bytes_of_four ", %%r11\n"                      \
        "add $16, %[a]\n"                                       \
        "add $256, %[b]\n"                                      \
        "cmp %[end], %[a]\n"                                    \
        "jne 1b\n"                                              \
        : SUMS, [a] "+r"(a), [b] "+r"(b)                        \
        : [end] "r"(end), [next] "r"(next_a)                    \
        : "memory", "cc", "r11", "xmm13", "xmm14", "xmm15")
// NOLINTEND(bugprone-macro-parentheses)

// clang-format on

// Adds `num_k` values of k of kRows rows, a multiple of 4, to their sums: a [kRows][128],
// b [num_k][2] vectors.
template <int kRows>
__attribute__((always_inline)) inline void multiply_floats(const float* a, const float* next_a,
                                                           const float* b, int64_t num_k,
                                                           __m256* acc) {
    const float* end = a + num_k;
    b += 32;
    if constexpr (kRows == 4) DSA_LOOP(DSA_FOUR_ROWS, DSA_FOUR_SUMS, 64);
    if constexpr (kRows == 5) DSA_LOOP(DSA_FIVE_ROWS, DSA_FIVE_SUMS, 80);
    if constexpr (kRows == 6) DSA_LOOP(DSA_SIX_ROWS, DSA_SIX_SUMS, 96);
}

#undef DSA_ROW
#undef DSA_FOUR_ROWS
#undef DSA_FIVE_ROWS
#undef DSA_SIX_ROWS
#undef DSA_FOUR_SUMS
#undef DSA_FIVE_SUMS
#undef DSA_SIX_SUMS
#undef DSA_LOOP

}  // namespace
}  // namespace dsa::gemm::cpu
