#pragma once
// OpenBLAS, opened when it is first used: the reference forward pass alone needs it, and a program
// that never asks for that pass does not load it. Safe from any number of threads.
//
// OpenBLAS has one setting of its threads a process; opening it here sets them to one, for the
// reference splits the products itself.

namespace dsa {

struct Blas {
    // CBLAS, with its constants kBlas* below; y[m, n] = alpha * x w + beta * y, row-major.
    void (*sgemm)(int order, int trans_x, int trans_w, int m, int n, int k, float alpha,
                  const float* x, int ldx, const float* w, int ldw, float beta, float* y, int ldy);
};

inline constexpr int kBlasRowMajor = 101;
inline constexpr int kBlasNoTrans = 111;
inline constexpr int kBlasTrans = 112;

// Throws kNotFound, naming the library, where it cannot be opened.
const Blas& blas();

}  // namespace dsa
