#pragma once
// What op tests share: a context for an ISA, repeatable random operands, rows at any byte offset.

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "base/dtypes.h"
#include "base/exec.h"
#include "gemm/weight.h"

namespace dsa::testing {

// A context of its own for one ISA and number of threads.
struct OpContext {
    ThreadPool pool;
    Arena scratch;
    Exec exec;

    explicit OpContext(Isa isa, int threads = 2)
        : pool(threads), scratch(int64_t{256} << 20), exec{pool, scratch, isa} {}
};

class Random {
  public:
    explicit Random(uint64_t seed) : engine_(seed) {}
    float normal(float sigma = 1.0F) { return sigma * normal_(engine_); }
    int64_t below(int64_t n) { return static_cast<int64_t>(engine_() % static_cast<uint64_t>(n)); }

    std::vector<float> floats(int64_t n, float sigma = 1.0F) {
        std::vector<float> v(static_cast<size_t>(n));
        for (float& x : v) x = normal(sigma);
        return v;
    }
    std::vector<bf16> bf16s(int64_t n, float sigma = 1.0F) {
        std::vector<bf16> v(static_cast<size_t>(n));
        for (bf16& x : v) x = to_bf16(normal(sigma));
        return v;
    }
    // Finite codes.
    std::vector<e4m3> e4m3s(int64_t n, float sigma = 30.0F) {
        std::vector<e4m3> v(static_cast<size_t>(n));
        for (e4m3& x : v) x = to_e4m3(normal(sigma));
        return v;
    }

  private:
    std::mt19937_64 engine_;
    std::normal_distribution<float> normal_;
};

// A weight with its storage.
struct OwnedWeight {
    std::vector<uint8_t> bytes;
    std::vector<float> scales;
    gemm::Weight view;
};

// FP8 with arbitrary (not power-of-two) block scales, or bf16; starts `misalign` bytes off.
inline OwnedWeight random_weight(Random& random, DType dtype, int64_t n, int64_t k,
                                 int64_t misalign = 0) {
    OwnedWeight w;
    w.bytes.resize(static_cast<size_t>(n * k * size_of(dtype) + misalign));
    uint8_t* data = w.bytes.data() + misalign;
    for (int64_t i = 0; i < n * k; ++i) {
        if (dtype == DType::kE4M3) {
            data[i] = to_e4m3(random.normal(30.0F)).bits;
        } else {
            const bf16 x = to_bf16(random.normal());
            std::memcpy(data + 2 * i, &x, 2);
        }
    }
    w.view = {data, dtype, nullptr, n, k};
    if (dtype == DType::kE4M3) {
        w.scales.resize(static_cast<size_t>(gemm::num_blocks(n) * gemm::num_blocks(k)));
        for (float& s : w.scales) s = 0.01F + std::fabs(random.normal(0.02F));
        w.view.scale_inv = w.scales.data();
    }
    return w;
}

inline double weight_at(const gemm::Weight& w, int64_t row, int64_t col) {
    const auto* data = static_cast<const uint8_t*>(w.data) + (row * w.k + col) * size_of(w.dtype);
    if (w.is_fp8())
        return static_cast<double>(to_float(e4m3{*data})) *
               w.scale_inv[row / 128 * gemm::num_blocks(w.k) + col / 128];
    bf16 x;
    std::memcpy(&x, data, 2);
    return to_float(x);
}

}  // namespace dsa::testing
