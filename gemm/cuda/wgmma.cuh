#pragma once
// The matrix instruction of a warpgroup: D[64, N] (+)= X[64, 32] Y[N, 32]^T, e4m3 in, fp32 sums.
//
// X and Y lie in shared memory in rows of 128 bytes (128 of k), 8 rows an atom of 1024 bytes, the
// 16-byte pieces of row r at place piece ^ (r % 8): the 128-byte swizzle that the copy engine
// writes. D: thread t of the warpgroup holds d[4 j + 2 h + i] = D[16 (t / 32) + 8 h + t % 32 / 4, 8
// j + t % 4 * 2 + i].

#include "shared.cuh"

namespace dsa::gemm::cuda {

// Descriptor of an operand, in units of 16 bytes: add to it to step through memory. `address` is a
// multiple of 1024.
__device__ inline u32 operand_start(u32 address) {
    return (address & 0x3ffff) >> 4 | 1u << 16;
}
__device__ inline u64 operand_descriptor(u32 start) {
    constexpr u32 kSwizzle128 = 1u << 30, kAtomStride = 1024 >> 4;
    u64 descriptor;
    asm("mov.b64 %0, {%1, %2};" : "=l"(descriptor) : "r"(start), "n"(kSwizzle128 | kAtomStride));
    return descriptor;
}

// What the instructions read and write is ordered with the code around them.
__device__ inline void wgmma_fence() {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ inline void wgmma_commit() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// Until at most kPending groups are unfinished.
template <int kPending>
__device__ inline void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}
// Keeps the compiler from moving uses of d across a wait.
template <int kCount>
__device__ inline void pin(float (&d)[kCount]) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(d[i])::"memory");
}

template <int kN>
struct Wgmma;

// clang-format off
#define DSA_D4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define DSA_D16(i) DSA_D4(i), DSA_D4(i + 4), DSA_D4(i + 8), DSA_D4(i + 12)
#define DSA_D32(i) DSA_D16(i), DSA_D16(i + 16)
#define DSA_T4 "%0,%1,%2,%3"
#define DSA_T8 DSA_T4 ",%4,%5,%6,%7"
#define DSA_T16 DSA_T8 ",%8,%9,%10,%11,%12,%13,%14,%15"
#define DSA_T32 DSA_T16 ",%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define DSA_T48 DSA_T32 ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47"
#define DSA_T64 DSA_T48 ",%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define DSA_T80 DSA_T64 ",%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79"
#define DSA_T96 DSA_T80 ",%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95"
// N, the list of its N / 2 registers as text and as operands, and the numbers of the three operands behind.
#define DSA_WGMMA(N, TEXT, OPERANDS, X, Y, ADD)                                                    \
    template <>                                                                                    \
    struct Wgmma<N> {                                                                              \
        __device__ static void multiply(float (&d)[N / 2], u64 x, u64 y, int add) {                \
            asm volatile(                                                                          \
                "{\n.reg .pred p;\nsetp.ne.b32 p, %" #ADD ", 0;\n"                                 \
                "wgmma.mma_async.sync.aligned.m64n" #N "k32.f32.e4m3.e4m3 {" TEXT "}, %" #X ", %" #Y \
                ", p, 1, 1;\n}"                                                                    \
                : OPERANDS                                                                         \
                : "l"(x), "l"(y), "r"(add));                                                       \
        }                                                                                          \
    }
#define DSA_OPERANDS(...) __VA_ARGS__
DSA_WGMMA(8, DSA_T4, DSA_OPERANDS(DSA_D4(0)), 4, 5, 6);
DSA_WGMMA(16, DSA_T8, DSA_OPERANDS(DSA_D4(0), DSA_D4(4)), 8, 9, 10);
DSA_WGMMA(32, DSA_T16, DSA_OPERANDS(DSA_D16(0)), 16, 17, 18);
DSA_WGMMA(64, DSA_T32, DSA_OPERANDS(DSA_D32(0)), 32, 33, 34);
DSA_WGMMA(96, DSA_T48, DSA_OPERANDS(DSA_D32(0), DSA_D16(32)), 48, 49, 50);
DSA_WGMMA(128, DSA_T64, DSA_OPERANDS(DSA_D32(0), DSA_D32(32)), 64, 65, 66);
DSA_WGMMA(160, DSA_T80, DSA_OPERANDS(DSA_D32(0), DSA_D32(32), DSA_D16(64)), 80, 81, 82);
DSA_WGMMA(192, DSA_T96, DSA_OPERANDS(DSA_D32(0), DSA_D32(32), DSA_D32(64)), 96, 97, 98);
#undef DSA_D4
#undef DSA_D16
#undef DSA_D32
#undef DSA_T4
#undef DSA_T8
#undef DSA_T16
#undef DSA_T32
#undef DSA_T48
#undef DSA_T64
#undef DSA_T80
#undef DSA_T96
#undef DSA_WGMMA
#undef DSA_OPERANDS
// clang-format on

}  // namespace dsa::gemm::cuda
