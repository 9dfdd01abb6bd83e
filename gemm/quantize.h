#pragma once
// Block quantisation to e4m3, one scale per 128 values along the last axis (spec: Q_128):
//   a = max(max |x|, 1e-4);  s = a / 448, or with UE8M0 the next power of two that is not smaller;
//   q = e4m3(clamp(x / s, +-448));  x ~ q * s.

#include <cstdint>

#include "base/dtypes.h"
#include "base/exec.h"

namespace dsa::gemm {

enum class ScaleFormat {
    kPlain,  // a / 448
    kUe8m0,  // 2^ceil(log2(a / 448)), stored as f32
};

// Scale of a block whose largest magnitude is absmax.
float block_scale(float absmax, ScaleFormat format);

// One block of n <= 128 values; returns its scale. NaN in x makes its own q NaN.
float quantize_block(const float* x, int64_t n, ScaleFormat format, e4m3* q);

struct Quantize1x128Params {
    int64_t m, k;
    const bf16* x;  // [m, k], row stride ldx
    int64_t ldx;
    ScaleFormat format;
    e4m3* q;       // [m, k] contiguous
    float* scale;  // [m, ceil(k / 128)] contiguous
};
void quantize_1x128(Exec& exec, const Quantize1x128Params& p);

// int8: s = max |x| / 127, q = round(x / s) in [-127, 127]. A block with an infinity or NaN gets
// the scale NaN; one below 1e-36 gets 0.
struct Quantize1x128Int8Params {
    int64_t m, k;
    const bf16* x;  // [m, k], row stride ldx
    int64_t ldx;
    int8_t* q;     // [m, k] contiguous
    float* scale;  // [m, ceil(k / 128)] contiguous
};
void quantize_1x128_int8(Exec& exec, const Quantize1x128Int8Params& p);

}  // namespace dsa::gemm
