// Linear layers: rows prepared as their weights want to meet them, then products.

#include <algorithm>

#include "base/check.h"
#include "gemm/gemm.h"
#include "gemm/products.h"

namespace dsa::gemm {
namespace {

constexpr int64_t kMaxOutputs = 8;

// The rows of a layer as its weights want to meet them.
struct LayerRows {
    Rows plain;
    Rows quantised;  // for FP8 weights

    Task task(int64_t first_row, int64_t m, const Weight& b, const Output& d) const {
        Task t{m, (b.is_fp8() ? quantised : plain).from(first_row, b.k), b, d};
        t.d.data = static_cast<uint8_t*>(d.data) + first_row * d.ld * size_of(d.dtype);
        return t;
    }
};

// What a layer's weights are: decides which forms of the rows are needed.
struct WeightTypes {
    bool fp8 = false;
    bool bf16 = false;

    void add(const Weight& w) { (w.is_fp8() ? fp8 : bf16) = true; }
};

DType form_of(Precision precision) {
    switch (precision) {
        case Precision::kFp8:
            return DType::kE4M3;
        case Precision::kInt8:
            return DType::kI8;
        default:
            return DType::kBF16;
    }
}

// Rows of all groups (ranges) of the layer's input.
LayerRows make_rows(Exec& exec, std::span<const RowRange> ranges, int64_t k, const LinearInput& in,
                    WeightTypes types, Precision precision, ScaleFormat format) {
    Rows source = Rows::of({in.x, DType::kBF16, in.ld, nullptr, 0, 0});
    source.up = in.up;
    LayerRows rows;
    const bool quantised = types.fp8 && precision != Precision::kBf16;
    if (types.bf16 || !quantised) rows.plain = pack_ranges(exec, ranges, k, source);
    rows.quantised = rows.plain;
    if (quantised) {
        source.form = form_of(precision);
        source.scale_format = format;
        rows.quantised = pack_ranges(exec, ranges, k, source);
    }
    return rows;
}

int64_t rows_bytes(int64_t m, int64_t k, int num_threads) {
    return 2 * pack_rows_bytes(m, k, num_threads);
}

}  // namespace

void linear(Exec& exec, const LinearParams& p) {
    const auto count = static_cast<int64_t>(p.outputs.size());
    DSA_CHECK(p.m >= 1, "linear: m is ", p.m, ", expected >= 1");
    DSA_CHECK(count >= 1 && count <= kMaxOutputs, "linear: ", count, " outputs, expected 1 to ",
              kMaxOutputs);
    const int64_t k = p.outputs[0].weight->k;
    WeightTypes types;
    for (const LinearOutput& out : p.outputs) {
        check_weight("linear", *out.weight);
        check_output("linear", out.d, out.weight->n);
        DSA_CHECK(out.weight->k == k, "linear: weights with k ", k, " and ", out.weight->k,
                  " over the same rows");
        types.add(*out.weight);
    }
    DSA_CHECK(p.in.ld >= k, "linear: row stride ", p.in.ld, ", expected at least k = ", k);
    const Arena::Scope scope(exec.scratch);
    const RowRange all{0, p.m};
    const LayerRows rows = make_rows(exec, {&all, 1}, k, p.in, types, p.precision, p.format);
    Task tasks[kMaxOutputs];
    for (int64_t i = 0; i < count; ++i) {
        const LinearOutput& out = p.outputs[static_cast<size_t>(i)];
        tasks[i] = rows.task(0, p.m, *out.weight, out.d);
    }
    run_tasks(exec, {tasks, static_cast<size_t>(count)});
}

int64_t linear_scratch_bytes(int64_t m, int64_t k, int num_threads) {
    return rows_bytes(m, k, num_threads) + run_tasks_bytes(k, num_threads);
}

void m_grouped_linear_contiguous(Exec& exec, const GroupedLinearParams& p) {
    const char* op = "m_grouped_linear_contiguous";
    const auto count = static_cast<int64_t>(p.outputs.size());
    DSA_CHECK(p.num_groups >= 1, op, ": ", p.num_groups, " groups, expected >= 1");
    DSA_CHECK(count >= 1 && count <= kMaxOutputs, op, ": ", count, " outputs, expected 1 to ",
              kMaxOutputs);
    const int64_t m = p.offsets[p.num_groups];
    const int64_t k = p.outputs[0].weights[0]->k;
    DSA_CHECK(p.in.ld >= k, op, ": row stride ", p.in.ld, ", expected at least k = ", k);
    WeightTypes types;
    for (const GroupedOutput& out : p.outputs) {
        const int64_t n = out.weights[0]->n;
        check_output(op, out.d, n);
        for (int64_t g = 0; g < p.num_groups; ++g) {
            const Weight& b = *out.weights[g];
            check_weight(op, b);
            DSA_CHECK(b.n == n && b.k == k, op, ": weight of group ", g, " is [", b.n, ", ", b.k,
                      "], expected [", n, ", ", k, "]");
            types.add(b);
        }
    }
    if (m == 0) return;
    const Arena::Scope scope(exec.scratch);
    auto* ranges = exec.scratch.alloc<RowRange>(p.num_groups);
    for (int64_t g = 0; g < p.num_groups; ++g) {
        ranges[g] = {p.offsets[g], p.offsets[g + 1] - p.offsets[g]};
        DSA_CHECK(ranges[g].count >= 0, op, ": offsets of group ", g, " descend from ",
                  p.offsets[g], " to ", p.offsets[g + 1]);
    }
    const LayerRows rows = make_rows(exec, {ranges, static_cast<size_t>(p.num_groups)}, k, p.in,
                                     types, p.precision, p.format);
    auto* tasks = exec.scratch.alloc<Task>(p.num_groups * count);
    int64_t num_tasks = 0;
    for (int64_t g = 0; g < p.num_groups; ++g) {
        if (ranges[g].count == 0) continue;
        for (const GroupedOutput& out : p.outputs)
            tasks[num_tasks++] =
                rows.task(ranges[g].first, ranges[g].count, *out.weights[g], out.d);
    }
    run_tasks(exec, {tasks, static_cast<size_t>(num_tasks)});
}

int64_t grouped_linear_scratch_bytes(int64_t rows, int64_t k, int64_t num_groups, int num_threads) {
    return rows_bytes(rows, k, num_threads) + Arena::bytes_for<RowRange>(num_groups) +
           Arena::bytes_for<Task>(num_groups * kMaxOutputs) + run_tasks_bytes(k, num_threads);
}

}  // namespace dsa::gemm
