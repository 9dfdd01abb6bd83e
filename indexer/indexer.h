#pragma once
// Lightning indexer (DeepSeek-V3.2): for each query, scores over all earlier tokens and the
// positions of the index_topk largest.
//
//   I[t, s] = s_k[s] * sum_h w'[t, h] * max(0, q8[t, h] . k8[s]),   w' = w * heads^-0.5 * s_q *
//   128^-0.5
//
// q and k carry RoPE on their first 64 dims, then a normalised 128 x 128 Hadamard rotation, then
// e4m3 with one scale a vector. Keys live in the paged index cache (docs/formats.md): in a page of
// 64 tokens first all values [64, 128] e4m3, then all scales [64] f32. All tokens of a call belong
// to one session, at consecutive positions. Scratch comes from the context; select() reads its
// caches only.

#include <cstdint>

#include "base/dtypes.h"
#include "base/exec.h"
#include "base/paging.h"
#include "base/rope.h"
#include "gemm/quantize.h"

namespace dsa::indexer {

inline constexpr int64_t kHeadDim = 128;
inline constexpr int64_t kRopeDim = 64;
inline constexpr int64_t kKeyBytes = kHeadDim + 4;
inline constexpr int64_t kPageBytes = kPageTokens * kKeyBytes;

struct StoreKeysParams {
    int64_t num_tokens;
    int64_t position;  // of the first token
    const bf16* k;     // [num_tokens, 128] = W_k x, row stride ldk
    int64_t ldk;
    const float* norm_weight;  // [128], LayerNorm with eps 1e-6
    const float* norm_bias;    // [128]
    const RopeTable* rope;
    RopePairing pairing;
    gemm::ScaleFormat format;
    PageTable cache;  // written at [position, position + num_tokens)
};
// LayerNorm, RoPE, Hadamard, quantise, store.
void store_keys(Exec& exec, const StoreKeysParams& p);

struct PrepareQueriesParams {
    int64_t num_tokens;
    int64_t num_heads;
    int64_t position;
    const bf16* q;   // [num_tokens, num_heads, 128] = W_qb qr
    const float* w;  // [num_tokens, num_heads] = W_w x
    const RopeTable* rope;
    RopePairing pairing;
    gemm::ScaleFormat format;
    e4m3* q8;         // [num_tokens, num_heads, 128]
    float* w_scaled;  // [num_tokens, num_heads], w' above
};
void prepare_queries(Exec& exec, const PrepareQueriesParams& p);

// Row r sees the keys at positions 0 .. position + r.
struct PagedMqaLogitsParams {
    int64_t num_tokens;
    int64_t num_heads;
    int64_t position;
    const e4m3* q8;         // [num_tokens, num_heads, 128]
    const float* w_scaled;  // [num_tokens, num_heads]
    PageTable cache;
    float* logits;  // [num_tokens, ld]; beyond a row's visible keys undefined
    int64_t ld;     // >= align_up(position + num_tokens, kPageTokens)
};
void fp8_paged_mqa_logits(Exec& exec, const PagedMqaLogitsParams& p);

// The k largest of each row, ties to the lower position, NaN as -inf; ascending positions.
struct TopKParams {
    int64_t num_rows;
    const float* logits;  // [num_rows, ld]
    int64_t ld;
    int64_t first_visible;  // row r has first_visible + r entries
    int64_t k;
    int32_t* indices;  // [num_rows, k]; behind lengths[r] entries -1
    int32_t* lengths;  // [num_rows], min(k, entries)
};
void top_k(Exec& exec, const TopKParams& p);

struct SelectParams {
    int64_t num_tokens;
    int64_t num_heads;
    int64_t position;
    int64_t topk;
    const e4m3* q8;         // [num_tokens, num_heads, 128]
    const float* w_scaled;  // [num_tokens, num_heads]
    PageTable cache;
    int32_t* indices;  // [num_tokens, topk], ascending, then -1
    int32_t* lengths;  // [num_tokens]
};
// Logits and selection in groups of rows; rows that see no more than topk keys take them all
// unscored.
void select(Exec& exec, const SelectParams& p);
// Scratch that select() takes for rows that end at `context` tokens.
int64_t select_scratch_bytes(int64_t context, int64_t num_heads, int num_threads);

}  // namespace dsa::indexer
