#include "indexer/indexer.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "base/dispatch.h"
#include "indexer/cpu/kernels.h"

namespace dsa::indexer {
namespace {

constexpr float kLayerNormEps = 1e-6F;
constexpr float kInvSqrtDim = 0.08838834764831845F;  // 128^-0.5
// Rows that are scored together: each page is widened once for all of them.
constexpr int64_t kRowGroup = 64;

void round_to_bf16(float* x) {
    for (int64_t i = 0; i < kHeadDim; ++i) x[i] = round_bf16(x[i]);
}

// The Sylvester Hadamard matrix times 128^-0.5, in place.
void hadamard(float* x) {
    for (int64_t width = 1; width < kHeadDim; width *= 2)
        for (int64_t base = 0; base < kHeadDim; base += 2 * width)
            for (int64_t i = base; i < base + width; ++i) {
                const float a = x[i];
                const float b = x[i + width];
                x[i] = a + b;
                x[i + width] = a - b;
            }
    for (int64_t i = 0; i < kHeadDim; ++i) x[i] *= kInvSqrtDim;
}

// RoPE on the first 64 dims, Hadamard, e4m3. x is clobbered.
float rotate_and_quantize(const RopeTable& rope, RopePairing pairing, int64_t position,
                          gemm::ScaleFormat format, float* x, e4m3* q) {
    apply_rope(rope, pairing, position, x);
    round_to_bf16(x);
    hadamard(x);
    round_to_bf16(x);
    return gemm::quantize_block(x, kHeadDim, format, q);
}

void layer_norm(const float* weight, const float* bias, float* x) {
    float mean = 0.0F;
    for (int64_t i = 0; i < kHeadDim; ++i) mean += x[i];
    mean /= static_cast<float>(kHeadDim);
    float variance = 0.0F;
    for (int64_t i = 0; i < kHeadDim; ++i) variance += (x[i] - mean) * (x[i] - mean);
    const float r = 1.0F / std::sqrt(variance / static_cast<float>(kHeadDim) + kLayerNormEps);
    for (int64_t i = 0; i < kHeadDim; ++i)
        x[i] = round_bf16((x[i] - mean) * r * weight[i] + bias[i]);
}

void check_rope(const char* op, const RopeTable* rope) {
    DSA_CHECK(rope->dim() == kRopeDim, op, ": RoPE over ", rope->dim(), " dims, expected ",
              kRopeDim);
}

}  // namespace

void store_keys(Exec& exec, const StoreKeysParams& p) {
    check_rope("store_keys", p.rope);
    DSA_CHECK(p.ldk >= kHeadDim, "store_keys: row stride ", p.ldk, ", expected at least ",
              kHeadDim);
    exec.pool.parallel_for(p.num_tokens, [&](int64_t begin, int64_t end, int) {
        for (int64_t t = begin; t < end; ++t) {
            const int64_t position = p.position + t;
            float x[kHeadDim];
            for (int64_t i = 0; i < kHeadDim; ++i) x[i] = to_float(p.k[t * p.ldk + i]);
            layer_norm(p.norm_weight, p.norm_bias, x);
            uint8_t* page = p.cache.page(position);
            const int64_t slot = position % kPageTokens;
            const float scale =
                rotate_and_quantize(*p.rope, p.pairing, position, p.format, x,
                                    reinterpret_cast<e4m3*>(page + slot * kHeadDim));
            std::memcpy(page + kPageTokens * kHeadDim + slot * 4, &scale, 4);
        }
    });
}

void prepare_queries(Exec& exec, const PrepareQueriesParams& p) {
    check_rope("prepare_queries", p.rope);
    const float factor = kInvSqrtDim / std::sqrt(static_cast<float>(p.num_heads));
    exec.pool.parallel_for(p.num_tokens, [&](int64_t begin, int64_t end, int) {
        for (int64_t i = begin * p.num_heads; i < end * p.num_heads; ++i) {
            float x[kHeadDim];
            for (int64_t d = 0; d < kHeadDim; ++d) x[d] = to_float(p.q[i * kHeadDim + d]);
            const float scale = rotate_and_quantize(
                *p.rope, p.pairing, p.position + i / p.num_heads, p.format, x, p.q8 + i * kHeadDim);
            p.w_scaled[i] = p.w[i] * factor * scale;
        }
    });
}

void fp8_paged_mqa_logits(Exec& exec, const PagedMqaLogitsParams& p) {
    const int64_t keys = p.position + p.num_tokens;
    DSA_CHECK(p.num_tokens >= 1 && p.num_heads >= 1 && p.position >= 0,
              "fp8_paged_mqa_logits: ", p.num_tokens, " tokens, ", p.num_heads,
              " heads at position ", p.position, "; expected >= 1, >= 1, >= 0");
    DSA_CHECK(p.ld >= align_up(keys, kPageTokens), "fp8_paged_mqa_logits: row stride ", p.ld,
              ", expected at least ", align_up(keys, kPageTokens));
    using namespace cpu;
    const Kernels& kernels = DSA_SELECT_KERNELS(exec.isa);
    const Arena::Scope scope(exec.scratch);
    const int64_t row_bytes = p.num_heads * kHeadDim * kernels.widened_bytes;
    auto* q = exec.scratch.alloc<uint8_t>(p.num_tokens * row_bytes);
    auto* scratch = exec.scratch.alloc<uint8_t>(exec.pool.num_threads() * kLogitsScratchBytes);
    exec.pool.parallel_for(p.num_tokens, [&](int64_t begin, int64_t end, int) {
        for (int64_t t = begin; t < end; ++t)
            kernels.widen_queries(&p.q8[t * p.num_heads * kHeadDim].bits, p.num_heads * kHeadDim,
                                  q + t * row_bytes);
    });
    const int64_t num_pages = (keys + kPageTokens - 1) / kPageTokens;
    exec.pool.parallel_for(num_pages, [&](int64_t begin, int64_t end, int thread) {
        for (int64_t page = begin; page < end; ++page) {
            // Rows before the first that sees this page have nothing to do with it.
            const int64_t first = std::max<int64_t>(0, page * kPageTokens - p.position);
            LogitsTile t{};
            t.rows = p.num_tokens - first;
            t.heads = p.num_heads;
            t.q = q + first * row_bytes;
            t.w = p.w_scaled + first * p.num_heads;
            t.page = p.cache.page(page * kPageTokens);
            if (page + 1 < end) t.next_page = p.cache.page((page + 1) * kPageTokens);
            t.logits = p.logits + first * p.ld + page * kPageTokens;
            t.ld = p.ld;
            t.scratch = scratch + thread * kLogitsScratchBytes;
            kernels.logits(t);
        }
    });
}

void select(Exec& exec, const SelectParams& p) {
    DSA_CHECK(p.topk >= 1, "select: topk is ", p.topk, ", expected >= 1");
    // Rows that see no more than topk keys.
    const int64_t dense = std::clamp<int64_t>(p.topk - p.position, 0, p.num_tokens);
    if (dense > 0)
        top_k(exec,
              {dense, nullptr, p.position + dense, p.position + 1, p.topk, p.indices, p.lengths});
    const Arena::Scope scope(exec.scratch);
    const int64_t ld = align_up(p.position + p.num_tokens, kPageTokens);
    auto* logits = exec.scratch.alloc<float>(kRowGroup * ld);
    for (int64_t row = dense; row < p.num_tokens; row += kRowGroup) {
        const int64_t rows = std::min(kRowGroup, p.num_tokens - row);
        fp8_paged_mqa_logits(
            exec, {rows, p.num_heads, p.position + row, p.q8 + row * p.num_heads * kHeadDim,
                   p.w_scaled + row * p.num_heads, p.cache, logits, ld});
        top_k(exec, {rows, logits, ld, p.position + row + 1, p.topk, p.indices + row * p.topk,
                     p.lengths + row});
    }
}

int64_t select_scratch_bytes(int64_t context, int64_t num_heads, int num_threads) {
    const int64_t keys = align_up(context, kPageTokens);
    const int64_t logits =
        Arena::bytes_for<uint8_t>(kRowGroup * num_heads * kHeadDim * cpu::kMaxWidenedBytes) +
        Arena::bytes_for<uint8_t>(num_threads * cpu::kLogitsScratchBytes);
    const int64_t top_k = Arena::bytes_for<uint32_t>(num_threads * keys);
    return Arena::bytes_for<float>(kRowGroup * keys) + std::max(logits, top_k);
}

}  // namespace dsa::indexer
