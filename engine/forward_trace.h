#pragma once
// What a forward pass records beside its logits; filled in by the reference and by the CPU path.
// Rows are positions in the session, ascending. Recording appends, layer by layer in the order of
// positions, so a prefill may consist of several chunks. For one forward pass at a time.

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

namespace dsa {

struct ForwardTrace {
    // The request.
    std::vector<int64_t> rows;  // the rows that the three flags speak of
    bool want_hidden = false;
    bool want_topk = false;
    bool want_experts = false;
    std::vector<int64_t> index_rows;  // rows whose index scores are kept

    // The recording; an index over rows counts those that went through so far.
    std::vector<std::vector<float>> hidden;  // [layers][rows * hidden_size], after the layer
    std::vector<std::vector<std::vector<int32_t>>> topk;        // [layers][rows], ascending
    std::vector<std::vector<int32_t>> experts;                  // [MoE layers][rows * per token],
                                                                // ascending in a row
    std::vector<std::vector<std::vector<float>>> index_scores;  // [layers][index_rows][row + 1]

    bool wants_row(int64_t position) const { return contains(rows, position); }
    bool wants_index_row(int64_t position) const { return contains(index_rows, position); }
    // Whether any of the positions [begin, end) has its index scores kept.
    bool wants_index_rows(int64_t begin, int64_t end) const {
        const auto first = std::lower_bound(index_rows.begin(), index_rows.end(), begin);
        return first != index_rows.end() && *first < end;
    }

    // These ignore what was not asked for.
    void record_hidden(int64_t layer, int64_t position, std::span<const float> values) {
        if (!want_hidden || !wants_row(position)) return;
        append(slot(hidden, layer), values);
    }
    void record_topk(int64_t layer, int64_t position, std::span<const int32_t> positions) {
        if (!want_topk || !wants_row(position)) return;
        slot(topk, layer).emplace_back(positions.begin(), positions.end());
    }
    // ids in any order.
    void record_experts(int64_t moe_layer, int64_t position, std::span<const int32_t> ids) {
        if (!want_experts || !wants_row(position)) return;
        std::vector<int32_t>& out = slot(experts, moe_layer);
        append(out, ids);
        std::sort(out.end() - static_cast<std::ptrdiff_t>(ids.size()), out.end());
    }
    // scores of the visible positions 0 .. position.
    void record_index_scores(int64_t layer, int64_t position, std::span<const float> scores) {
        if (!wants_index_row(position)) return;
        slot(index_scores, layer).emplace_back(scores.begin(), scores.end());
    }

  private:
    static bool contains(const std::vector<int64_t>& sorted, int64_t value) {
        return std::binary_search(sorted.begin(), sorted.end(), value);
    }
    template <typename T>
    static T& slot(std::vector<T>& per_layer, int64_t layer) {
        const auto i = static_cast<size_t>(layer);
        if (per_layer.size() <= i) per_layer.resize(i + 1);
        return per_layer[i];
    }
    template <typename T>
    static void append(std::vector<T>& out, std::span<const T> values) {
        out.insert(out.end(), values.begin(), values.end());
    }
};

}  // namespace dsa
