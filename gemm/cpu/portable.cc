// gemm kernels in plain C++: for any machine, and what the others are read against.

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "base/dtypes.h"
#include "base/lanes.h"
#include "gemm/cpu/int8_tables.h"
#include "gemm/cpu/kernels.h"
#include "gemm/cpu/row_scales.h"
#include "gemm/quantize.h"

namespace dsa::gemm::cpu {
namespace {

constexpr int64_t kBlock = kBlockK;

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

template <typename Code>
void pack_row(const Code* a, int64_t k, int64_t block_stride, float* out) {
    for (; k > 0; k -= kBlock, a += kBlock, out += block_stride)
        widen_block(a, std::min(kBlock, k), out);
}

void pack_rows(const PackRows& p) {
    for (int64_t row = 0; row < p.m; ++row) {
        float* out = static_cast<float*>(p.out) + row * kBlock;
        if (p.is_e4m3) {
            pack_row(static_cast<const uint8_t*>(p.a) + row * p.lda, p.k, p.block_stride, out);
        } else {
            pack_row(static_cast<const uint16_t*>(p.a) + row * p.lda, p.k, p.block_stride, out);
        }
    }
}

void store(const NtTile& t, const float* total) {
    for (int64_t row = 0; row < t.m; ++row)
        for (int64_t j = 0; j < t.n; ++j) {
            const float sum = total[row * t.n + j];
            const float value = std::isnan(sum) ? std::numeric_limits<float>::quiet_NaN() : sum;
            if (t.d_is_f32) {
                static_cast<float*>(t.d)[row * t.ldd + j] = value;
            } else {
                static_cast<uint16_t*>(t.d)[row * t.ldd + j] = to_bf16(value).bits;
            }
        }
}

template <typename Code>
void nt(const NtTile& t) {
    auto* total = static_cast<float*>(t.scratch);  // [m][n]
    std::fill_n(total, t.m * t.n, 0.0F);
    for (int64_t k = 0; k < t.k; k += kBlock) {
        const int64_t block = k / kBlock;
        const float* a = static_cast<const float*>(t.a) + block * t.a_block_stride;
        for (int64_t j = 0; j < t.n; ++j) {
            float b[kBlock];
            widen_block(static_cast<const Code*>(t.b) + j * t.ldb + k, std::min(kBlock, t.k - k),
                        b);
            const float b_scale =
                t.b_scale != nullptr ? t.b_scale[j / kBlock * t.b_scale_ld + block] : 1.0F;
            for (int64_t row = 0; row < t.m; ++row) {
                const float a_scale =
                    t.a_scale != nullptr
                        ? t.a_scale[row * t.a_scale_stride_m + block * t.a_scale_stride_k]
                        : 1.0F;
                total[row * t.n + j] +=
                    sum_lanes(dot_lanes(a + row * kBlock, b, kBlock)) * (a_scale * b_scale);
            }
        }
    }
    store(t, total);
}

void pack_int8_rows(const PackRows& p) {
    for (int64_t row = 0; row < p.m; ++row) {
        const int8_t* a = static_cast<const int8_t*>(p.a) + row * p.lda;
        auto* out = static_cast<int8_t*>(p.out) + row * kBlock;
        for (int64_t k = 0; k < p.k; k += kBlock, out += p.block_stride) {
            const int64_t valid = std::min(kBlock, p.k - k);
            std::copy_n(a + k, valid, out);
            std::fill(out + valid, out + kBlock, int8_t{0});
        }
    }
}

// 128 codes (valid of them, zeros behind) as int8; returns what 1 means.
float requantise(const uint8_t* codes, int64_t valid, int8_t* q) {
    int largest = 0;
    for (int64_t i = 0; i < valid; ++i) largest = std::max(largest, codes[i] & 0x7f);
    std::fill_n(q, kBlock, int8_t{0});
    for (int64_t i = 0; i < valid; ++i) {
        const int below = largest - (codes[i] & 0x7f);
        const int magnitude = below < 64 ? kInt8Tables.magnitude[largest][below] : 0;
        q[i] = static_cast<int8_t>((codes[i] & 0x80) != 0 ? -magnitude : magnitude);
    }
    return kInt8Tables.unit[largest];
}

void nt_int8(const NtTile& t) {
    auto* total = static_cast<float*>(t.scratch);  // [m][n]
    std::fill_n(total, t.m * t.n, 0.0F);
    for (int64_t k = 0; k < t.k; k += kBlock) {
        const int64_t block = k / kBlock;
        const int8_t* a = static_cast<const int8_t*>(t.a) + block * t.a_block_stride;
        for (int64_t j = 0; j < t.n; ++j) {
            int8_t b[kBlock];
            const float unit = requantise(static_cast<const uint8_t*>(t.b) + j * t.ldb + k,
                                          std::min(kBlock, t.k - k), b) *
                               t.b_scale[j / kBlock * t.b_scale_ld + block];
            for (int64_t row = 0; row < t.m; ++row) {
                int32_t sum = 0;
                for (int64_t i = 0; i < kBlock; ++i) sum += a[row * kBlock + i] * b[i];
                const float scale =
                    t.a_scale[row * t.a_scale_stride_m + block * t.a_scale_stride_k] * unit;
                float& out = total[row * t.n + j];
                out = std::fma(static_cast<float>(sum), scale, out);
            }
        }
    }
    store(t, total);
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
        for (int64_t j = 0; j < t.n; ++j) {
            const float scale = t.b_scale != nullptr ? t.b_scale[j / kBlock] : 1.0F;
            t.d[row * t.ldd + j] = to_bf16(total[j] * scale).bits;
        }
    }
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

void quantize_row_int8(const uint16_t* x, int64_t n, int8_t* q, float* scale) {
    for (int64_t k = 0; k < n; k += kBlock) {
        const int64_t valid = std::min(kBlock, n - k);
        int32_t top = 0;
        for (int64_t i = 0; i < valid; ++i)
            top = std::max(top, std::bit_cast<int32_t>(std::fabs(widen(x[k + i]))));
        const Int8Scale s = int8_scale(top);
        scale[k / kBlock] = s.scale;
        for (int64_t i = 0; i < valid; ++i)
            q[k + i] = s.inverse == 0.0F
                           ? int8_t{0}
                           : static_cast<int8_t>(std::nearbyint(widen(x[k + i]) * s.inverse));
    }
}

void silu_mul(const uint16_t* gate, const uint16_t* up, int64_t n, uint16_t* out) {
    for (int64_t i = 0; i < n; ++i) {
        const float g = widen(gate[i]);
        out[i] = to_bf16(g / (1.0F + std::exp(-g)) * widen(up[i])).bits;
    }
}

uint64_t read(const uint8_t* p, int64_t n, int64_t /*ahead*/) {
    uint64_t sum[8] = {};
    for (int64_t i = 0; i < n; i += 64) {
        uint64_t line[8];
        std::memcpy(line, p + i, sizeof(line));
        for (int j = 0; j < 8; ++j) sum[j] += line[j];
    }
    return sum[0] + sum[1] + sum[2] + sum[3] + sum[4] + sum[5] + sum[6] + sum[7];
}

}  // namespace

extern const Kernels kPortableKernels = {sizeof(float),     kTileRows,   pack_rows,    nt<uint8_t>,
                                         nt<uint16_t>,      nn<uint8_t>, nn<uint16_t>, quantize_row,
                                         quantize_row_int8, silu_mul,    read,         nullptr};

extern const Int8Kernels kPortableInt8Kernels = {sizeof(int8_t), pack_int8_rows, nt_int8, nullptr};

}  // namespace dsa::gemm::cpu
