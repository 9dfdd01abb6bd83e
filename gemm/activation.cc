#include "gemm/activation.h"

#include <cmath>

#include "base/check.h"
#include "base/lanes.h"

namespace dsa::gemm {

void rms_norm_row(const float* x, const float* weight, float eps, int64_t n, bf16* out) {
    const float mean = sum_lanes(dot_lanes(x, x, n)) / static_cast<float>(n);
    const float r = 1.0F / std::sqrt(mean + eps);
    for (int64_t i = 0; i < n; ++i) out[i] = to_bf16(weight[i] * (x[i] * r));
}

void rms_norm(Exec& exec, const RmsNormParams& p) {
    DSA_CHECK(p.n > 0 && p.ldx >= p.n, "rms_norm: n ", p.n, ", row stride ", p.ldx,
              "; expected n > 0, stride >= n");
    const Arena::Scope scope(exec.scratch);
    auto* rows = exec.scratch.alloc<float>(exec.pool.num_threads() * p.n);
    exec.pool.parallel_for(p.m, [&](int64_t begin, int64_t end, int thread) {
        float* x = rows + thread * p.n;
        for (int64_t row = begin; row < end; ++row) {
            for (int64_t i = 0; i < p.n; ++i) x[i] = to_float(p.x[row * p.ldx + i]);
            rms_norm_row(x, p.weight, p.eps, p.n, p.out + row * p.n);
        }
    });
}

void add_rms_norm(Exec& exec, const AddRmsNormParams& p) {
    DSA_CHECK(p.n > 0, "add_rms_norm: n is ", p.n, ", expected > 0");
    exec.pool.parallel_for(p.m, [&](int64_t begin, int64_t end, int) {
        for (int64_t row = begin; row < end; ++row) {
            float* x = p.residual + row * p.n;
            if (p.add != nullptr)
                for (int64_t i = 0; i < p.n; ++i) x[i] += to_float(p.add[row * p.n + i]);
            rms_norm_row(x, p.weight, p.eps, p.n, p.out + row * p.n);
        }
    });
}

}  // namespace dsa::gemm
