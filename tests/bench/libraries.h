#pragma once
// The same products by well-known libraries, for comparison in the same run. Weights are what each
// library likes best: converted and reordered ahead of time, which our kernels never do.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/isa.h"

namespace dsa::bench {

// D[m, n] = A[m, k] B[n, k]^T of random values; call() runs it once. Several copies of B, used in
// turn, so that weights come from memory where `copies` says so.
struct LibraryProduct {
    std::function<void()> call;
};

// oneDNN limited to what `isa` has: bf16 where the ISA multiplies it, else f32. Call before any
// other use of oneDNN in the process.
void limit_onednn(Isa isa, int threads);
LibraryProduct onednn_product(Isa isa, int64_t m, int64_t n, int64_t k, int copies);
LibraryProduct onednn_int8_product(int64_t m, int64_t n, int64_t k, int copies);

// sgemm of OpenBLAS.
LibraryProduct openblas_product(int threads, int64_t m, int64_t n, int64_t k, int copies);
std::string openblas_core();

}  // namespace dsa::bench
