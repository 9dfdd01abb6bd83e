// gemm kernels in plain C++: for any machine, and what the others are read against.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>

#include "base/dtypes.h"
#include "base/lanes.h"
#include "gemm/cpu/kernels.h"
#include "gemm/quantize.h"

namespace dsa::gemm::cpu {
namespace {

constexpr int64_t kBlock = 128;

float widen(uint16_t x) {
    return to_float(bf16{x});
}
float widen(uint8_t x) {
    return to_float(e4m3{x});
}

// valid values, zeros up to the end of the block.
template <typename Code>
void widen_block(const Code* x, int64_t valid, float* out) {
    for (int64_t i = 0; i < valid; ++i) out[i] = widen(x[i]);
    std::fill(out + valid, out + kBlock, 0.0F);
}

void add_block(const float* a, const float* b, float scale, Lanes& total) {
    const Lanes block = dot_lanes(a, b, kBlock);
    for (size_t l = 0; l < kLanes; ++l) total[l] += block[l] * scale;
}

template <typename Code>
void nt(const NtTile& t) {
    const auto* b = static_cast<const Code*>(t.b);
    const int64_t ldp = (t.k + kBlock - 1) / kBlock * kBlock;
    auto* panel = static_cast<float*>(t.panel);
    for (int64_t j = 0; j < t.n; ++j)
        for (int64_t k = 0; k < t.k; k += kBlock)
            widen_block(b + j * t.ldb + k, std::min(kBlock, t.k - k), panel + j * ldp + k);

    for (int64_t row = 0; row < t.m; ++row) {
        std::array<Lanes, kTileN> total{};
        for (int64_t k = 0; k < t.k; k += kBlock) {
            float a[kBlock];
            widen_block(t.a + row * t.lda + k, std::min(kBlock, t.k - k), a);
            const int64_t block = k / kBlock;
            float scale = t.b_scale != nullptr ? t.b_scale[block] : 1.0F;
            if (t.a_scale != nullptr)
                scale *= t.a_scale[row * t.a_scale_stride_m + block * t.a_scale_stride_k];
            for (int64_t j = 0; j < t.n; ++j)
                add_block(a, panel + j * ldp + k, scale, total[static_cast<size_t>(j)]);
        }
        for (int64_t j = 0; j < t.n; ++j) {
            const float value = sum_lanes(total[static_cast<size_t>(j)]);
            if (t.d_is_f32) {
                static_cast<float*>(t.d)[row * t.ldd + j] = value;
            } else {
                static_cast<uint16_t*>(t.d)[row * t.ldd + j] = to_bf16(value).bits;
            }
        }
    }
}

template <typename Code>
void nn(const NnTile& t) {
    const auto* b = static_cast<const Code*>(t.b);
    auto* panel = static_cast<float*>(t.panel);
    for (int64_t k = 0; k < kNnK; ++k)
        for (int64_t j = 0; j < t.n; ++j) panel[k * kTileNn + j] = widen(b[k * t.ldb + j]);
    for (int64_t row = 0; row < t.m; ++row) {
        float total[kTileNn] = {};
        for (int64_t k = 0; k < kNnK; ++k) {
            const float a = widen(t.a[row * t.lda + k]);
            for (int64_t j = 0; j < t.n; ++j) total[j] += a * panel[k * kTileNn + j];
        }
        for (int64_t j = 0; j < t.n; ++j) t.d[row * t.ldd + j] = to_bf16(total[j] * t.b_scale).bits;
    }
}

void widen_e4m3(const uint8_t* x, int64_t n, uint16_t* y) {
    for (int64_t i = 0; i < n; ++i) y[i] = to_bf16(widen(x[i])).bits;
}

void quantize_row(const uint16_t* x, int64_t n, bool ue8m0, uint8_t* q, float* scale) {
    for (int64_t k = 0; k < n; k += kBlock) {
        float block[kBlock];
        const int64_t valid = std::min(kBlock, n - k);
        widen_block(x + k, valid, block);
        e4m3 codes[kBlock];
        scale[k / kBlock] =
            quantize_block(block, valid, ue8m0 ? ScaleFormat::kUe8m0 : ScaleFormat::kPlain, codes);
        for (int64_t i = 0; i < valid; ++i) q[k + i] = codes[i].bits;
    }
}

void silu_mul(const uint16_t* gate, const uint16_t* up, int64_t n, uint16_t* out) {
    for (int64_t i = 0; i < n; ++i) {
        const float g = widen(gate[i]);
        out[i] = to_bf16(g / (1.0F + std::exp(-g)) * widen(up[i])).bits;
    }
}

}  // namespace

extern const Kernels kPortableKernels = {nt<uint8_t>, nt<uint16_t>, nn<uint8_t>, nn<uint16_t>,
                                         widen_e4m3,  quantize_row, silu_mul};

}  // namespace dsa::gemm::cpu
