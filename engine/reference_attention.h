#pragma once
// The two expensive steps of the reference path: selection of the lightning indexer and sparse MLA
// in the absorbed form, over fp32 caches whose rows are positions 0, 1, ... Row r of a call is the
// query at `position + r` and sees the keys 0 .. position + r, all of which are in the cache
// already.

#include <cstdint>
#include <vector>

#include "base/thread_pool.h"
#include "engine/forward_trace.h"

namespace dsa::reference {

// Selected positions of each row, ascending.
using Selection = std::vector<std::vector<int32_t>>;

struct SelectParams {
    int64_t num_tokens;
    int64_t position;
    int64_t num_heads;
    int64_t head_dim;
    int64_t topk;
    const float* q;       // [num_tokens, num_heads, head_dim]
    const float* w;       // [num_tokens, num_heads], constant factors included
    const float* k;       // [position + num_tokens, head_dim]
    int64_t layer;        // for the trace
    ForwardTrace* trace;  // may be null
};
// I[t, s] = sum_h w[t, h] * max(0, q[t, h] . k[s]); the topk largest of each row. A row that sees
// no more than topk keys takes them all, unscored unless the trace wants its scores.
Selection select(ThreadPool& pool, const SelectParams& p);

struct AttendParams {
    int64_t num_tokens;
    int64_t position;
    int64_t num_heads;
    int64_t latent_dim;
    int64_t rope_dim;
    float softmax_scale;
    const float* u;         // [num_tokens, num_heads, latent_dim], absorbed queries
    const float* q_rope;    // [rope_dim], strides below
    int64_t q_rope_row;     // floats from token to token
    int64_t q_rope_head;    // floats from head to head
    const float* latent;    // [position + num_tokens, latent_dim]
    const float* rope_key;  // [position + num_tokens, rope_dim]
    const Selection* selection;
    float* z;  // [num_tokens, num_heads, latent_dim]
};
// z_h = sum over selected s of softmax(softmax_scale * (u_h . c_s + q^r_h . k^r_s)) * c_s.
void attend(ThreadPool& pool, const AttendParams& p);

// Upper bound of what the two take for temporaries.
int64_t attention_scratch_bytes(int64_t context_length, int64_t index_heads, int64_t topk,
                                int64_t latent_dim, int64_t rope_dim, int64_t num_heads,
                                int64_t num_threads);

}  // namespace dsa::reference
