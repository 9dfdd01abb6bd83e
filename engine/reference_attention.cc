#include "engine/reference_attention.h"

#include <algorithm>
#include <numeric>

#include "engine/reference_ops.h"

namespace dsa::reference {
namespace {

// Queries whose scores over the whole context are computed at once.
constexpr int64_t kQueryBlock = 64;
// Up to so many queries gather their selected rows instead: their cost is that of the selection.
constexpr int64_t kGatherQueries = 8;
// Rows of one product of the indexer: query heads.
constexpr int64_t kIndexRows = 128;

int64_t index_rows_per_block(int64_t num_heads) {
    return std::max<int64_t>(1, kIndexRows / num_heads);
}

// Scores of `rows` consecutive queries from row `first`; out[i] has one entry a visible key.
// dots: scratch [rows * num_heads, visible keys of the last row].
void index_scores(const SelectParams& p, int64_t first, int64_t rows, std::vector<float>& dots,
                  std::vector<std::vector<float>>& out) {
    const int64_t keys = p.position + first + rows;
    dots.resize(static_cast<size_t>(rows * p.num_heads * keys));
    sgemm_nt(rows * p.num_heads, keys, p.head_dim, p.q + first * p.num_heads * p.head_dim,
             p.head_dim, p.k, p.head_dim, 0.0F, dots.data(), keys);
    std::vector<double> sum;
    for (int64_t i = 0; i < rows; ++i) {
        const int64_t visible = p.position + first + i + 1;
        sum.assign(static_cast<size_t>(visible), 0.0);
        for (int64_t h = 0; h < p.num_heads; ++h) {
            const double w = p.w[(first + i) * p.num_heads + h];
            const float* dot = dots.data() + (i * p.num_heads + h) * keys;
            for (int64_t s = 0; s < visible; ++s) {
                sum[static_cast<size_t>(s)] += w * std::max(dot[s], 0.0F);
            }
        }
        std::vector<float>& scores = out[static_cast<size_t>(i)];
        scores.resize(sum.size());
        std::transform(sum.begin(), sum.end(), scores.begin(),
                       [](double v) { return static_cast<float>(v); });
    }
}

// Softmax over the selected entries of row[n]; all others become 0.
void masked_softmax(float* row, int64_t n, float scale, std::span<const int32_t> selected,
                    std::vector<float>& scratch) {
    scratch.resize(selected.size());
    for (size_t i = 0; i < selected.size(); ++i) scratch[i] = row[selected[i]] * scale;
    softmax(scratch);
    std::fill_n(row, n, 0.0F);
    for (size_t i = 0; i < selected.size(); ++i) row[selected[i]] = scratch[i];
}

// Queries [first, first + rows) over all keys that the last of them sees, masked.
void attend_block(ThreadPool& pool, const AttendParams& p, int64_t first, int64_t rows) {
    const int64_t keys = p.position + first + rows;
    const int64_t u_row = p.num_heads * p.latent_dim;
    pool.parallel_for(p.num_heads, [&](int64_t begin, int64_t end, int) {
        std::vector<float> scores(static_cast<size_t>(rows * keys));
        std::vector<float> scratch;
        for (int64_t h = begin; h < end; ++h) {
            sgemm_nt(rows, keys, p.latent_dim, p.u + first * u_row + h * p.latent_dim, u_row,
                     p.latent, p.latent_dim, 0.0F, scores.data(), keys);
            sgemm_nt(rows, keys, p.rope_dim, p.q_rope + first * p.q_rope_row + h * p.q_rope_head,
                     p.q_rope_row, p.rope_key, p.rope_dim, 1.0F, scores.data(), keys);
            for (int64_t i = 0; i < rows; ++i) {
                masked_softmax(scores.data() + i * keys, keys, p.softmax_scale,
                               (*p.selection)[static_cast<size_t>(first + i)], scratch);
            }
            sgemm_nn(rows, p.latent_dim, keys, scores.data(), keys, p.latent, p.latent_dim,
                     p.z + first * u_row + h * p.latent_dim, u_row);
        }
    });
}

void gather(const float* rows, int64_t dim, std::span<const int32_t> selected,
            std::vector<float>& out) {
    out.resize(selected.size() * static_cast<size_t>(dim));
    float* to = out.data();
    for (int32_t s : selected) to = std::copy_n(rows + s * dim, dim, to);
}

// One query over copies of its selected rows.
void attend_gathered(ThreadPool& pool, const AttendParams& p, int64_t row,
                     std::vector<float>& latent, std::vector<float>& rope_key) {
    const std::vector<int32_t>& selected = (*p.selection)[static_cast<size_t>(row)];
    const auto keys = static_cast<int64_t>(selected.size());
    gather(p.latent, p.latent_dim, selected, latent);
    gather(p.rope_key, p.rope_dim, selected, rope_key);
    const float* u = p.u + row * p.num_heads * p.latent_dim;
    float* z = p.z + row * p.num_heads * p.latent_dim;
    pool.parallel_for(p.num_heads, [&](int64_t begin, int64_t end, int) {
        const int64_t heads = end - begin;
        std::vector<float> scores(static_cast<size_t>(heads * keys));
        sgemm_nt(heads, keys, p.latent_dim, u + begin * p.latent_dim, p.latent_dim, latent.data(),
                 p.latent_dim, 0.0F, scores.data(), keys);
        sgemm_nt(heads, keys, p.rope_dim, p.q_rope + row * p.q_rope_row + begin * p.q_rope_head,
                 p.q_rope_head, rope_key.data(), p.rope_dim, 1.0F, scores.data(), keys);
        for (float& score : scores) score *= p.softmax_scale;
        for (int64_t h = 0; h < heads; ++h) {
            softmax(std::span(scores).subspan(static_cast<size_t>(h * keys),
                                              static_cast<size_t>(keys)));
        }
        sgemm_nn(heads, p.latent_dim, keys, scores.data(), keys, latent.data(), p.latent_dim,
                 z + begin * p.latent_dim, p.latent_dim);
    });
}

}  // namespace

Selection select(ThreadPool& pool, const SelectParams& p) {
    Selection selection(static_cast<size_t>(p.num_tokens));
    std::vector<std::vector<float>> traced(static_cast<size_t>(p.num_tokens));
    const int64_t block = index_rows_per_block(p.num_heads);
    const int64_t num_blocks = (p.num_tokens + block - 1) / block;
    pool.parallel_for(num_blocks, [&](int64_t begin, int64_t end, int) {
        std::vector<float> dots;
        std::vector<std::vector<float>> scores(static_cast<size_t>(block));
        for (int64_t b = begin; b < end; ++b) {
            const int64_t first = b * block;
            const int64_t rows = std::min(block, p.num_tokens - first);
            const int64_t last_position = p.position + first + rows;
            const bool scored =
                last_position > p.topk ||
                (p.trace && p.trace->wants_index_rows(p.position + first, last_position));
            if (scored) index_scores(p, first, rows, dots, scores);
            for (int64_t r = first; r < first + rows; ++r) {
                std::vector<int32_t>& selected = selection[static_cast<size_t>(r)];
                const std::vector<float>& row_scores = scores[static_cast<size_t>(r - first)];
                const int64_t visible = p.position + r + 1;
                if (visible <= p.topk) {
                    selected.resize(static_cast<size_t>(visible));
                    std::iota(selected.begin(), selected.end(), 0);
                } else {
                    selected = top_k(row_scores, p.topk);
                }
                if (p.trace && p.trace->wants_index_row(p.position + r)) {
                    traced[static_cast<size_t>(r)] = row_scores;
                }
            }
        }
    });
    if (p.trace) {
        for (int64_t r = 0; r < p.num_tokens; ++r) {
            p.trace->record_topk(p.layer, p.position + r, selection[static_cast<size_t>(r)]);
            p.trace->record_index_scores(p.layer, p.position + r, traced[static_cast<size_t>(r)]);
        }
    }
    return selection;
}

void attend(ThreadPool& pool, const AttendParams& p) {
    if (p.num_tokens <= kGatherQueries) {
        std::vector<float> latent;
        std::vector<float> rope_key;
        for (int64_t r = 0; r < p.num_tokens; ++r) attend_gathered(pool, p, r, latent, rope_key);
        return;
    }
    for (int64_t first = 0; first < p.num_tokens; first += kQueryBlock) {
        attend_block(pool, p, first, std::min(kQueryBlock, p.num_tokens - first));
    }
}

int64_t attention_scratch_bytes(int64_t context_length, int64_t index_heads, int64_t topk,
                                int64_t latent_dim, int64_t rope_dim, int64_t num_heads,
                                int64_t num_threads) {
    const int64_t float_bytes = sizeof(float);
    const int64_t rows = index_rows_per_block(index_heads);
    // A thread: dot products of all heads, sums in double, scores and the two copies of top_k.
    // There are no scores where all visible tokens are taken.
    const int64_t thread_index = context_length * ((rows * index_heads + rows + 2) * float_bytes +
                                                   static_cast<int64_t>(sizeof(double)));
    const int64_t index = context_length > topk ? num_threads * thread_index : 0;
    const int64_t blocks = num_threads * (kQueryBlock * context_length + topk) * float_bytes;
    const int64_t gathered =
        std::min(topk, context_length) * (latent_dim + rope_dim + num_heads) * float_bytes;
    return std::max({index, blocks, gathered});
}

}  // namespace dsa::reference
