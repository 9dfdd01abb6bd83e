// Writing KV records: RMSNorm, RoPE, quantisation.

#include <cstring>

#include "attention/attention.h"
#include "base/check.h"
#include "gemm/activation.h"

namespace dsa::attention {
namespace {

constexpr int64_t kScales = kLatentDim / gemm::kScaleBlock;
static_assert(kRecordBytes == kLatentDim + kScales * 4 + kRopeDim * 2);

void write_record(const StoreKvParams& p, int64_t token, uint8_t* record) {
    const bf16* kv = p.kv + token * p.ldkv;
    float x[kKeyDim];
    for (int64_t i = 0; i < kKeyDim; ++i) x[i] = to_float(kv[i]);

    bf16 latent[kLatentDim];
    gemm::rms_norm_row(x, p.norm_weight, p.norm_eps, kLatentDim, latent);
    float c[kLatentDim];
    for (int64_t i = 0; i < kLatentDim; ++i) c[i] = to_float(latent[i]);
    auto* codes = reinterpret_cast<e4m3*>(record);
    float scale[kScales];
    for (int64_t b = 0; b < kScales; ++b)
        scale[b] = gemm::quantize_block(c + b * gemm::kScaleBlock, gemm::kScaleBlock, p.format,
                                        codes + b * gemm::kScaleBlock);
    std::memcpy(record + kLatentDim, scale, sizeof(scale));

    float* rope = x + kLatentDim;
    apply_rope(*p.rope, RopePairing::kInterleaved, p.position + token, rope);
    bf16 rotated[kRopeDim];
    for (int64_t i = 0; i < kRopeDim; ++i) rotated[i] = to_bf16(rope[i]);
    std::memcpy(record + kLatentDim + sizeof(scale), rotated, sizeof(rotated));
}

}  // namespace

void store_kv(Exec& exec, const StoreKvParams& p) {
    DSA_CHECK(p.ldkv >= kKeyDim, "store_kv: row stride ", p.ldkv, ", expected at least ", kKeyDim);
    DSA_CHECK(p.rope->dim() == kRopeDim, "store_kv: RoPE over ", p.rope->dim(), " dims, expected ",
              kRopeDim);
    exec.pool.parallel_for(p.num_tokens, [&](int64_t begin, int64_t end, int) {
        for (int64_t t = begin; t < end; ++t) {
            const int64_t position = p.position + t;
            write_record(p, t, p.cache.page(position) + position % kPageTokens * kRecordBytes);
        }
    });
}

}  // namespace dsa::attention
