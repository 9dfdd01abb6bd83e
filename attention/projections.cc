// The two halves of kv_b around the absorbed attention.

#include <algorithm>

#include "attention/attention.h"
#include "base/check.h"
#include "gemm/gemm.h"

namespace dsa::attention {
namespace {

constexpr int64_t kRowsPerHead = kNopeDim + kValueDim;  // of kv_b

void check(const char* op, int64_t num_heads, const gemm::Weight& kv_b) {
    DSA_CHECK(kv_b.n == num_heads * kRowsPerHead && kv_b.k == kLatentDim, op, ": kv_b is [", kv_b.n,
              ", ", kv_b.k, "], expected [", num_heads * kRowsPerHead, ", ", kLatentDim, "]");
}

}  // namespace

void absorb_queries(Exec& exec, const AbsorbQueriesParams& p) {
    check("absorb_queries", p.num_heads, p.kv_b);
    gemm::BatchedGemmParams g;
    g.batches = p.num_heads;
    g.m = p.num_tokens;
    g.n = kLatentDim;
    g.k = kNopeDim;
    g.a = p.q;
    g.lda = p.num_heads * kQueryDim;
    g.a_stride = kQueryDim;
    g.b = p.kv_b;
    g.b_row_stride = kRowsPerHead;
    g.d = p.absorbed;
    g.ldd = p.num_heads * kKeyDim;
    g.d_stride = kKeyDim;
    gemm::batched_gemm_nn(exec, g);

    exec.pool.parallel_for(p.num_tokens, [&](int64_t begin, int64_t end, int) {
        for (int64_t i = begin * p.num_heads; i < end * p.num_heads; ++i) {
            const bf16* q = p.q + i * kQueryDim + kNopeDim;
            bf16* out = p.absorbed + i * kKeyDim + kLatentDim;
            float x[kRopeDim];
            for (int64_t d = 0; d < kRopeDim; ++d) x[d] = to_float(q[d]);
            apply_rope(*p.rope, RopePairing::kInterleaved, p.position + i / p.num_heads, x);
            for (int64_t d = 0; d < kRopeDim; ++d) out[d] = to_bf16(x[d]);
        }
    });
}

void project_values(Exec& exec, const ProjectValuesParams& p) {
    check("project_values", p.num_heads, p.kv_b);
    gemm::BatchedGemmParams g;
    g.batches = p.num_heads;
    g.m = p.num_tokens;
    g.n = kValueDim;
    g.k = kLatentDim;
    g.a = p.z;
    g.lda = p.num_heads * kLatentDim;
    g.a_stride = kLatentDim;
    g.b = p.kv_b;
    g.b_row = kNopeDim;
    g.b_row_stride = kRowsPerHead;
    g.d = p.out;
    g.ldd = p.num_heads * kValueDim;
    g.d_stride = kValueDim;
    gemm::batched_gemm_nt(exec, g);
}

int64_t projections_scratch_bytes(int num_threads) {
    return gemm::batched_gemm_scratch_bytes(std::max(kLatentDim, kNopeDim), num_threads);
}

}  // namespace dsa::attention
