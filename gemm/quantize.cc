#include "gemm/quantize.h"

#include <bit>
#include <cmath>

#include "base/check.h"
#include "gemm/cpu/select.h"
#include "gemm/weight.h"

namespace dsa::gemm {

float block_scale(float absmax, ScaleFormat format) {
    const float a = absmax > 1e-4F ? absmax : 1e-4F;
    if (format == ScaleFormat::kPlain) return a / kE4m3Max;
    // The next power of two: one exponent up unless the mantissa is 0.
    const uint32_t bits = std::bit_cast<uint32_t>(a * (1.0F / kE4m3Max));
    return std::bit_cast<float>((bits + 0x7fffffU) & 0xff800000U);
}

float quantize_block(const float* x, int64_t n, ScaleFormat format, e4m3* q) {
    float absmax = 0.0F;
    for (int64_t i = 0; i < n; ++i) {
        const float magnitude = std::fabs(x[i]);
        if (magnitude > absmax) absmax = magnitude;
    }
    const float scale = block_scale(absmax, format);
    for (int64_t i = 0; i < n; ++i) q[i] = to_e4m3(x[i] / scale);
    return scale;
}

void quantize_1x128(Exec& exec, const Quantize1x128Params& p) {
    DSA_CHECK(p.m >= 0 && p.k > 0 && p.ldx >= p.k, "quantize_1x128: m ", p.m, ", k ", p.k,
              ", row stride ", p.ldx, "; expected m >= 0, k > 0, stride >= k");
    using namespace cpu;
    const Kernels& kernels = kernels_for(exec.isa);
    const int64_t blocks = num_blocks(p.k);
    exec.pool.parallel_for(p.m, [&](int64_t begin, int64_t end, int) {
        for (int64_t row = begin; row < end; ++row)
            kernels.quantize_row(&p.x[row * p.ldx].bits, p.k, p.format == ScaleFormat::kUe8m0,
                                 &p.q[row * p.k].bits, p.scale + row * blocks);
    });
}

void quantize_1x128_int8(Exec& exec, const Quantize1x128Int8Params& p) {
    DSA_CHECK(p.m >= 0 && p.k > 0 && p.ldx >= p.k, "quantize_1x128_int8: m ", p.m, ", k ", p.k,
              ", row stride ", p.ldx, "; expected m >= 0, k > 0, stride >= k");
    const cpu::Kernels& kernels = cpu::kernels_for(exec.isa);
    const int64_t blocks = num_blocks(p.k);
    exec.pool.parallel_for(p.m, [&](int64_t begin, int64_t end, int) {
        for (int64_t row = begin; row < end; ++row)
            kernels.quantize_row_int8(&p.x[row * p.ldx].bits, p.k, p.q + row * p.k,
                                      p.scale + row * blocks);
    });
}

}  // namespace dsa::gemm
