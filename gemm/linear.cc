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
        Task t{m, (b.is_fp8() ? quantised : plain).from(first_row), b, d};
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

// Rows quantised for FP8 weights.
Activations quantise(Exec& exec, int64_t m, int64_t k, const bf16* x, int64_t ldx,
                     Precision precision, ScaleFormat format) {
    auto* codes = exec.scratch.alloc<uint8_t>(m * k);
    auto* scale = exec.scratch.alloc<float>(m * num_blocks(k));
    if (precision == Precision::kInt8) {
        quantize_1x128_int8(exec, {m, k, x, ldx, reinterpret_cast<int8_t*>(codes), scale});
        return {codes, DType::kI8, k, scale, num_blocks(k), 1};
    }
    quantize_1x128(exec, {m, k, x, ldx, format, reinterpret_cast<e4m3*>(codes), scale});
    return {codes, DType::kE4M3, k, scale, num_blocks(k), 1};
}

LayerRows make_rows(Exec& exec, int64_t m, int64_t k, const bf16* x, int64_t ldx, WeightTypes types,
                    Precision precision, ScaleFormat format) {
    LayerRows rows;
    const bool quantised = types.fp8 && precision != Precision::kBf16;
    if (types.bf16 || !quantised)
        rows.plain = pack_rows(exec, m, k, {x, DType::kBF16, ldx, nullptr, 0, 0});
    rows.quantised = rows.plain;
    if (quantised)
        rows.quantised = pack_rows(exec, m, k, quantise(exec, m, k, x, ldx, precision, format));
    return rows;
}

int64_t rows_bytes(int64_t m, int64_t k) {
    return Arena::bytes_for<uint8_t>(m * k) + Arena::bytes_for<float>(m * num_blocks(k)) +
           2 * pack_rows_bytes(m, k);
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
    DSA_CHECK(p.ldx >= k, "linear: row stride ", p.ldx, ", expected at least k = ", k);
    const Arena::Scope scope(exec.scratch);
    const LayerRows rows = make_rows(exec, p.m, k, p.x, p.ldx, types, p.precision, p.format);
    Task tasks[kMaxOutputs];
    for (int64_t i = 0; i < count; ++i) {
        const LinearOutput& out = p.outputs[static_cast<size_t>(i)];
        tasks[i] = rows.task(0, p.m, *out.weight, out.d);
    }
    run_tasks(exec, {tasks, static_cast<size_t>(count)});
}

int64_t linear_scratch_bytes(int64_t m, int64_t k, int num_threads) {
    return rows_bytes(m, k) + run_tasks_bytes(k, num_threads);
}

void m_grouped_linear_contiguous(Exec& exec, const GroupedLinearParams& p) {
    const char* op = "m_grouped_linear_contiguous";
    const auto count = static_cast<int64_t>(p.outputs.size());
    DSA_CHECK(p.num_groups >= 1, op, ": ", p.num_groups, " groups, expected >= 1");
    DSA_CHECK(count >= 1 && count <= kMaxOutputs, op, ": ", count, " outputs, expected 1 to ",
              kMaxOutputs);
    const int64_t m = p.offsets[p.num_groups];
    const int64_t k = p.outputs[0].weights[0]->k;
    DSA_CHECK(p.ldx >= k, op, ": row stride ", p.ldx, ", expected at least k = ", k);
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
    const LayerRows rows = make_rows(exec, m, k, p.x, p.ldx, types, p.precision, p.format);
    auto* tasks = exec.scratch.alloc<Task>(p.num_groups * count);
    int64_t num_tasks = 0;
    for (int64_t g = 0; g < p.num_groups; ++g) {
        const int64_t first = p.offsets[g];
        DSA_CHECK(p.offsets[g + 1] >= first, op, ": offsets of group ", g, " descend from ", first,
                  " to ", p.offsets[g + 1]);
        if (p.offsets[g + 1] == first) continue;
        for (const GroupedOutput& out : p.outputs)
            tasks[num_tasks++] = rows.task(first, p.offsets[g + 1] - first, *out.weights[g], out.d);
    }
    run_tasks(exec, {tasks, static_cast<size_t>(num_tasks)});
}

int64_t grouped_linear_scratch_bytes(int64_t rows, int64_t k, int64_t num_groups, int num_threads) {
    return rows_bytes(rows, k) + Arena::bytes_for<Task>(num_groups * kMaxOutputs) +
           run_tasks_bytes(k, num_threads);
}

}  // namespace dsa::gemm
