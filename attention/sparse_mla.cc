// Sparse MLA: which thread takes which query and split. The arithmetic is in cpu/.

#include <algorithm>

#include "attention/attention.h"
#include "attention/cpu/kernels.h"
#include "base/check.h"
#include "base/dispatch.h"

namespace dsa::attention {
namespace {

using cpu::kSplitKeys;
using cpu::Partial;

// Below this many queries a thread, the splits of a query are shared between the threads.
constexpr int64_t kQueriesPerThread = 2;

int64_t num_splits(int64_t length) {
    return (length + kSplitKeys - 1) / kSplitKeys;
}

int64_t partial_floats(int64_t heads) {
    return align_up(heads * (2 + kLatentDim), kAlignment / 4);
}

Partial partial_at(float* base, int64_t index, int64_t heads) {
    float* p = base + index * partial_floats(heads);
    return {p, p + heads, p + 2 * heads};
}

cpu::SplitArgs split_args(const SparseMlaParams& p, int64_t token, int64_t split, void* scratch) {
    cpu::SplitArgs a{};
    a.heads = p.num_heads;
    a.q = &p.q[token * p.num_heads * kKeyDim].bits;
    a.pages = p.cache.pages;
    a.page_offset = p.cache.offset;
    a.indices = p.indices + token * p.ld_indices + split * kSplitKeys;
    a.count = std::min<int64_t>(kSplitKeys, p.lengths[token] - split * kSplitKeys);
    a.scale = p.softmax_scale;
    a.scratch = scratch;
    return a;
}

bool share_splits(int64_t num_tokens, int num_threads) {
    return num_threads > 1 && num_tokens < kQueriesPerThread * num_threads;
}

uint16_t* output_of(const SparseMlaParams& p, int64_t token) {
    return &p.out[token * p.num_heads * kLatentDim].bits;
}

}  // namespace

void sparse_mla(Exec& exec, const SparseMlaParams& p) {
    DSA_CHECK(p.num_heads >= 1, "sparse_mla: ", p.num_heads, " heads, expected >= 1");
    int64_t longest = 0;
    for (int64_t t = 0; t < p.num_tokens; ++t) {
        DSA_CHECK(p.lengths[t] >= 1 && p.lengths[t] <= p.ld_indices, "sparse_mla: query ", t,
                  " has ", p.lengths[t], " selected positions, expected 1 to ", p.ld_indices);
        longest = std::max<int64_t>(longest, p.lengths[t]);
    }
    using namespace cpu;
    const Kernels& kernels = DSA_SELECT_KERNELS(exec.isa);
    const Arena::Scope scope(exec.scratch);
    const int threads = exec.pool.num_threads();
    const int64_t scratch_bytes = align_up(split_scratch_bytes(p.num_heads));
    auto* scratch = exec.scratch.alloc<uint8_t>(threads * scratch_bytes);

    if (!share_splits(p.num_tokens, threads)) {
        auto* partials = exec.scratch.alloc<float>(2 * threads * partial_floats(p.num_heads));
        exec.pool.parallel_for(p.num_tokens, [&](int64_t begin, int64_t end, int thread) {
            const Partial total = partial_at(partials, 2 * thread, p.num_heads);
            const Partial next = partial_at(partials, 2 * thread + 1, p.num_heads);
            for (int64_t t = begin; t < end; ++t) {
                for (int64_t s = 0; s < num_splits(p.lengths[t]); ++s) {
                    SplitArgs a = split_args(p, t, s, scratch + thread * scratch_bytes);
                    a.out = s == 0 ? total : next;
                    kernels.split(a);
                    if (s > 0) kernels.merge(p.num_heads, total, next);
                }
                kernels.finish(p.num_heads, total, output_of(p, t));
            }
        });
        return;
    }
    // Not num_splits(p.ld_indices): the first of these would all be one thread's.
    const int64_t most = num_splits(longest);
    auto* partials = exec.scratch.alloc<float>(p.num_tokens * most * partial_floats(p.num_heads));
    exec.pool.parallel_for(p.num_tokens * most, [&](int64_t begin, int64_t end, int thread) {
        for (int64_t i = begin; i < end; ++i) {
            if (i % most >= num_splits(p.lengths[i / most])) continue;
            SplitArgs a = split_args(p, i / most, i % most, scratch + thread * scratch_bytes);
            a.out = partial_at(partials, i, p.num_heads);
            kernels.split(a);
        }
    });
    for (int64_t t = 0; t < p.num_tokens; ++t) {
        const Partial total = partial_at(partials, t * most, p.num_heads);
        for (int64_t s = 1; s < num_splits(p.lengths[t]); ++s)
            kernels.merge(p.num_heads, total, partial_at(partials, t * most + s, p.num_heads));
        kernels.finish(p.num_heads, total, output_of(p, t));
    }
}

int64_t sparse_mla_scratch_bytes(int64_t num_heads, int64_t topk, int num_threads) {
    const int64_t shared = kQueriesPerThread * num_threads * num_splits(topk);
    return Arena::bytes_for<uint8_t>(num_threads * align_up(cpu::split_scratch_bytes(num_heads))) +
           Arena::bytes_for<float>(std::max<int64_t>(shared, 2 * num_threads) *
                                   partial_floats(num_heads));
}

}  // namespace dsa::attention
