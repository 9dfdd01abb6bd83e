#pragma once
// What tests of products share: rows of A of any type, their tolerance, the operator for a pair of
// types.

#include <algorithm>
#include <cmath>
#include <vector>

#include "gemm/gemm.h"
#include "testing/op_fixture.h"

namespace dsa::testing {

using gemm::Activations;

// Rows of A in any type, and what they mean.
struct Rows {
    std::vector<bf16> plain;
    std::vector<e4m3> codes;
    std::vector<float> scale;
    Activations view;
    std::vector<double> value;  // [m, k]
};

inline Rows random_rows(Random& random, DType dtype, int64_t m, int64_t k) {
    Rows r;
    r.value.resize(static_cast<size_t>(m * k));
    if (dtype == DType::kBF16) {
        r.plain = random.bf16s(m * k);
        r.view = {r.plain.data(), dtype, k, nullptr, 0, 0};
        for (size_t i = 0; i < r.value.size(); ++i) r.value[i] = to_float(r.plain[i]);
        return r;
    }
    const int64_t blocks = gemm::num_blocks(k);
    r.codes = random.e4m3s(m * k);
    r.scale = random.floats(m * blocks, 0.1F);
    if (dtype == DType::kI8)
        for (e4m3& code : r.codes)
            code.bits = static_cast<uint8_t>(static_cast<int8_t>(random.below(255) - 127));
    r.view = {r.codes.data(), dtype, k, r.scale.data(), blocks, 1};
    for (int64_t i = 0; i < m; ++i)
        for (int64_t j = 0; j < k; ++j) {
            const e4m3 code = r.codes[static_cast<size_t>(i * k + j)];
            const double value = dtype == DType::kI8 ? static_cast<int8_t>(code.bits)
                                                     : static_cast<double>(to_float(code));
            r.value[static_cast<size_t>(i * k + j)] =
                value * r.scale[static_cast<size_t>(i * blocks + j / 128)];
        }
    return r;
}

// |error| is at most a few roundings of the products' magnitudes: fp32 sums of k terms, and the
// output.
inline void expect_near(double got, double want, double magnitude, int64_t k, bool bf16_out) {
    const double sum_error =
        magnitude * std::ldexp(1.0, -23) * (2.0 + std::sqrt(static_cast<double>(k)));
    const double out_error = bf16_out ? std::fabs(want) * std::ldexp(1.0, -8) : 0.0;
    ASSERT_NEAR(got, want, sum_error + out_error);
}

// The operator for the types of p.
inline void run_gemm(Exec& exec, const gemm::GemmParams& p) {
    if (p.a.dtype == DType::kI8) {
        gemm::int8_fp8_gemm_nt(exec, p);
    } else if (p.a.dtype == DType::kE4M3) {
        gemm::fp8_gemm_nt(exec, p);
    } else if (p.b.is_fp8()) {
        gemm::bf16_fp8_gemm_nt(exec, p);
    } else {
        gemm::bf16_gemm_nt(exec, p);
    }
}

// [m, b.n], so many rows at a time.
inline std::vector<float> product_in_steps(Exec& exec, const Activations& a, const gemm::Weight& b,
                                           int64_t m, int64_t step) {
    std::vector<float> d(static_cast<size_t>(m * b.n));
    for (int64_t row = 0; row < m; row += step) {
        Activations part = a;
        part.data = static_cast<const uint8_t*>(part.data) + row * b.k * size_of(a.dtype);
        if (part.scale != nullptr) part.scale += row * part.scale_stride_m;
        run_gemm(exec,
                 {std::min(step, m - row), part, b, {d.data() + row * b.n, DType::kF32, b.n}});
    }
    return d;
}

}  // namespace dsa::testing
