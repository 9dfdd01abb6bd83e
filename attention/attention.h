#pragma once
// Multi-head latent attention (MLA) in the absorbed form over a paged FP8 cache, reading only the
// selected tokens:
//
//   u_h = W_UK,h^T q^n_h;  logit[h, s] = sigma * (u_h . c_s + q^r_h . k^r_s), s in S_t
//   z_h = sum_s softmax(logit)[h, s] * c_s;  o_h = W_UV,h z_h
//
// KV record of a token (656 bytes, docs/formats.md): 512 e4m3 latent values, 4 f32 scales (one per
// 128 values), 64 bf16 RoPE values. The head sizes below are compile-time constants; the engine
// refuses a model with others. All tokens of a call belong to one session, at consecutive
// positions.

#include <cstdint>

#include "base/dtypes.h"
#include "base/exec.h"
#include "base/paging.h"
#include "base/rope.h"
#include "gemm/quantize.h"
#include "gemm/weight.h"

namespace dsa::attention {

inline constexpr int64_t kLatentDim = 512;  // kv_lora_rank
inline constexpr int64_t kRopeDim = 64;     // qk_rope_head_dim
inline constexpr int64_t kNopeDim = 128;    // qk_nope_head_dim
inline constexpr int64_t kValueDim = 128;   // v_head_dim
inline constexpr int64_t kQueryDim = kNopeDim + kRopeDim;
inline constexpr int64_t kKeyDim = kLatentDim + kRopeDim;  // of the absorbed form
inline constexpr int64_t kRecordBytes = 656;
inline constexpr int64_t kPageBytes = kPageTokens * kRecordBytes;

struct StoreKvParams {
    int64_t num_tokens;
    int64_t position;  // of the first token
    const bf16* kv;    // [num_tokens, 576] = W_kva x, row stride ldkv: latent, then RoPE part
    int64_t ldkv;
    const float* norm_weight;  // [512]
    float norm_eps;
    const RopeTable* rope;
    gemm::ScaleFormat format;
    PageTable cache;  // written at [position, position + num_tokens)
};
// RMSNorm of the latent, RoPE (interleaved), quantise, store.
void store_kv(Exec& exec, const StoreKvParams& p);

struct AbsorbQueriesParams {
    int64_t num_tokens;
    int64_t num_heads;
    int64_t position;
    const bf16* q;      // [num_tokens, num_heads, 192]: 128 nope, 64 RoPE (not yet rotated)
    gemm::Weight kv_b;  // [num_heads * 256, 512]; rows of a head: 128 of W_UK, then 128 of W_UV
    const RopeTable* rope;
    bf16* absorbed;  // [num_tokens, num_heads, 576]: u, then rotated RoPE part
};
void absorb_queries(Exec& exec, const AbsorbQueriesParams& p);

struct SparseMlaParams {
    int64_t num_tokens;
    int64_t num_heads;
    const bf16* q;           // [num_tokens, num_heads, 576]
    const int32_t* indices;  // [num_tokens, ld_indices] positions, ascending
    int64_t ld_indices;
    const int32_t* lengths;  // [num_tokens], 1 .. ld_indices
    float softmax_scale;     // sigma: of the 192-wide form, not 576^-0.5
    PageTable cache;
    bf16* out;  // [num_tokens, num_heads, 512], z above
};
void sparse_mla(Exec& exec, const SparseMlaParams& p);
int64_t sparse_mla_scratch_bytes(int64_t num_heads, int64_t topk, int num_threads);

struct ProjectValuesParams {
    int64_t num_tokens;
    int64_t num_heads;
    const bf16* z;      // [num_tokens, num_heads, 512]
    gemm::Weight kv_b;  // as above
    bf16* out;          // [num_tokens, num_heads, 128]
};
void project_values(Exec& exec, const ProjectValuesParams& p);
// Scratch of absorb_queries() and project_values().
int64_t projections_scratch_bytes(int num_threads);

}  // namespace dsa::attention
