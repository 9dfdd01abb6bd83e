#include "gemm/gemm.h"

#include <algorithm>

#include "base/check.h"
#include "base/dispatch.h"
#include "gemm/cpu/kernels.h"
#include "gemm/schedule.h"

namespace dsa::gemm {
namespace {

using cpu::kTileN;
using cpu::NtTile;

constexpr int64_t kMaxOutputs = 8;
// Rows that share one widening of a weight tile; more rows are split for the sake of many threads.
constexpr int64_t kRowBlock = 128;

// One product; A is bf16 by now.
struct Task {
    int64_t m;
    const uint16_t* a;
    int64_t lda;
    const float* a_scale;
    int64_t a_scale_stride_m, a_scale_stride_k;
    Weight b;
    Output d;

    int64_t row_blocks() const { return (m + kRowBlock - 1) / kRowBlock; }
    int64_t col_tiles() const { return (b.n + kTileN - 1) / kTileN; }
};

const cpu::Kernels& kernels_for(const Exec& exec) {
    using namespace cpu;
    return DSA_SELECT_KERNELS(exec.isa);
}

void run_unit(const cpu::Kernels& kernels, const Task& t, int64_t unit, void* panel) {
    const int64_t row = unit % t.row_blocks() * kRowBlock;
    const int64_t col = unit / t.row_blocks() * kTileN;
    const bool fp8 = t.b.is_fp8();
    NtTile tile{};
    tile.m = std::min(kRowBlock, t.m - row);
    tile.n = std::min(kTileN, t.b.n - col);
    tile.k = t.b.k;
    tile.a = t.a + row * t.lda;
    tile.lda = t.lda;
    if (t.a_scale != nullptr) tile.a_scale = t.a_scale + row * t.a_scale_stride_m;
    tile.a_scale_stride_m = t.a_scale_stride_m;
    tile.a_scale_stride_k = t.a_scale_stride_k;
    tile.b = static_cast<const uint8_t*>(t.b.data) + col * t.b.k * size_of(t.b.dtype);
    tile.ldb = t.b.k;
    if (fp8) tile.b_scale = t.b.scale_inv + col / kScaleBlock * num_blocks(t.b.k);
    tile.d = static_cast<uint8_t*>(t.d.data) + (row * t.d.ld + col) * size_of(t.d.dtype);
    tile.ldd = t.d.ld;
    tile.d_is_f32 = t.d.dtype == DType::kF32;
    tile.panel = panel;
    (fp8 ? kernels.nt_e4m3 : kernels.nt_bf16)(tile);
}

int64_t panels_bytes(int64_t k, int num_threads) {
    return Arena::bytes_for<uint8_t>(num_threads * align_up(cpu::nt_panel_bytes(k)));
}

void run_tasks(Exec& exec, std::span<const Task> tasks) {
    int64_t k = 0;
    for (const Task& t : tasks) k = std::max(k, t.b.k);
    const Arena::Scope scope(exec.scratch);
    const int64_t panel_bytes = align_up(cpu::nt_panel_bytes(k));
    auto* panels = exec.scratch.alloc<uint8_t>(exec.pool.num_threads() * panel_bytes);
    const cpu::Kernels& kernels = kernels_for(exec);
    for_each_unit(
        exec.pool, static_cast<int64_t>(tasks.size()),
        [&](int64_t i) {
            const Task& t = tasks[static_cast<size_t>(i)];
            if (t.m == 0) return TaskSize{0, 0};
            return TaskSize{t.row_blocks() * t.col_tiles(), std::min(t.m, kRowBlock) * t.b.k};
        },
        [&](int64_t i, int64_t unit, int thread) {
            run_unit(kernels, tasks[static_cast<size_t>(i)], unit, panels + thread * panel_bytes);
        });
}

void check_weight(const char* op, const Weight& b) {
    DSA_CHECK(b.n > 0 && b.k > 0 && b.data != nullptr, op, ": weight [", b.n, ", ", b.k,
              "], expected a non-empty one");
    DSA_CHECK(b.dtype == DType::kE4M3 || b.dtype == DType::kBF16, op, ": weight of type ",
              to_string(b.dtype), ", expected F8_E4M3 or BF16");
    DSA_CHECK(!b.is_fp8() || b.scale_inv != nullptr, op, ": FP8 weight without scales");
}

void check_output(const char* op, const Output& d, int64_t n) {
    DSA_CHECK(d.dtype == DType::kBF16 || d.dtype == DType::kF32, op, ": output of type ",
              to_string(d.dtype), ", expected BF16 or F32");
    DSA_CHECK(d.ld >= n, op, ": output row stride ", d.ld, ", expected at least n = ", n);
}

Task make_task(int64_t m, const bf16* a, int64_t lda, const Weight& b, const Output& d) {
    return {m, &a->bits, lda, nullptr, 0, 0, b, d};
}

// e4m3 rows as bf16, exact, from scratch.
const uint16_t* widen_rows(Exec& exec, int64_t m, int64_t k, const e4m3* x, int64_t ldx) {
    auto* wide = exec.scratch.alloc<uint16_t>(m * k);
    const cpu::Kernels& kernels = kernels_for(exec);
    exec.pool.parallel_for(m, [&](int64_t begin, int64_t end, int) {
        for (int64_t row = begin; row < end; ++row)
            kernels.widen_e4m3(&x[row * ldx].bits, k, wide + row * k);
    });
    return wide;
}

void dense(Exec& exec, const char* op, const GemmParams& p, DType a_type, DType b_type) {
    DSA_CHECK(p.m >= 1, op, ": m is ", p.m, ", expected >= 1");
    check_weight(op, p.b);
    check_output(op, p.d, p.b.n);
    DSA_CHECK(p.a.dtype == a_type && p.b.dtype == b_type, op, ": operands ", to_string(p.a.dtype),
              " x ", to_string(p.b.dtype), ", expected ", to_string(a_type), " x ",
              to_string(b_type));
    DSA_CHECK(p.a.ld >= p.b.k, op, ": row stride of A ", p.a.ld, ", expected at least k = ", p.b.k);
    DSA_CHECK(a_type == DType::kBF16 || p.a.scale != nullptr, op, ": FP8 rows without scales");
    const Arena::Scope scope(exec.scratch);
    Task t = make_task(p.m, static_cast<const bf16*>(p.a.data), p.a.ld, p.b, p.d);
    if (a_type == DType::kE4M3) {
        t.a = widen_rows(exec, p.m, p.b.k, static_cast<const e4m3*>(p.a.data), p.a.ld);
        t.lda = p.b.k;
        t.a_scale = p.a.scale;
        t.a_scale_stride_m = p.a.scale_stride_m;
        t.a_scale_stride_k = p.a.scale_stride_k;
    }
    run_tasks(exec, {&t, 1});
}

// The rows of a layer as its weights want to meet them.
struct LayerRows {
    const bf16* plain;
    int64_t ld;
    const uint16_t* quantised = nullptr;  // on the e4m3 grid; contiguous
    const float* scale = nullptr;         // [m, num_blocks(k)]
    int64_t k;

    Task task(int64_t first_row, int64_t m, const Weight& b, const Output& d) const {
        Output rows = d;
        rows.data = static_cast<uint8_t*>(d.data) + first_row * d.ld * size_of(d.dtype);
        if (quantised == nullptr || !b.is_fp8())
            return make_task(m, plain + first_row * ld, ld, b, rows);
        return {m,
                quantised + first_row * k,
                k,
                scale + first_row * num_blocks(k),
                num_blocks(k),
                1,
                b,
                rows};
    }
};

LayerRows make_rows(Exec& exec, int64_t m, int64_t k, const bf16* x, int64_t ldx, bool quantise,
                    ScaleFormat format) {
    LayerRows rows{x, ldx, nullptr, nullptr, k};
    if (!quantise) return rows;
    auto* codes = exec.scratch.alloc<e4m3>(m * k);
    auto* scale = exec.scratch.alloc<float>(m * num_blocks(k));
    quantize_1x128(exec, {m, k, x, ldx, format, codes, scale});
    rows.quantised = widen_rows(exec, m, k, codes, k);
    rows.scale = scale;
    return rows;
}

int64_t rows_bytes(int64_t m, int64_t k) {
    return Arena::bytes_for<e4m3>(m * k) + Arena::bytes_for<uint16_t>(m * k) +
           Arena::bytes_for<float>(m * num_blocks(k));
}

}  // namespace

void fp8_gemm_nt(Exec& exec, const GemmParams& p) {
    dense(exec, "fp8_gemm_nt", p, DType::kE4M3, DType::kE4M3);
}

void bf16_fp8_gemm_nt(Exec& exec, const GemmParams& p) {
    dense(exec, "bf16_fp8_gemm_nt", p, DType::kBF16, DType::kE4M3);
}

void bf16_gemm_nt(Exec& exec, const GemmParams& p) {
    dense(exec, "bf16_gemm_nt", p, DType::kBF16, DType::kBF16);
}

void linear(Exec& exec, const LinearParams& p) {
    const auto count = static_cast<int64_t>(p.outputs.size());
    DSA_CHECK(p.m >= 1, "linear: m is ", p.m, ", expected >= 1");
    DSA_CHECK(count >= 1 && count <= kMaxOutputs, "linear: ", count, " outputs, expected 1 to ",
              kMaxOutputs);
    const int64_t k = p.outputs[0].weight->k;
    bool quantise = false;
    for (const LinearOutput& out : p.outputs) {
        check_weight("linear", *out.weight);
        check_output("linear", out.d, out.weight->n);
        DSA_CHECK(out.weight->k == k, "linear: weights with k ", k, " and ", out.weight->k,
                  " over the same rows");
        quantise |= p.precision == Precision::kFp8 && out.weight->is_fp8();
    }
    DSA_CHECK(p.ldx >= k, "linear: row stride ", p.ldx, ", expected at least k = ", k);
    const Arena::Scope scope(exec.scratch);
    const LayerRows rows = make_rows(exec, p.m, k, p.x, p.ldx, quantise, p.format);
    Task tasks[kMaxOutputs];
    for (int64_t i = 0; i < count; ++i) {
        const LinearOutput& out = p.outputs[static_cast<size_t>(i)];
        tasks[i] = rows.task(0, p.m, *out.weight, out.d);
    }
    run_tasks(exec, {tasks, static_cast<size_t>(count)});
}

int64_t linear_scratch_bytes(int64_t m, int64_t k, int num_threads) {
    return rows_bytes(m, k) + panels_bytes(k, num_threads);
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
    bool quantise = false;
    for (const GroupedOutput& out : p.outputs) {
        const int64_t n = out.weights[0]->n;
        check_output(op, out.d, n);
        for (int64_t g = 0; g < p.num_groups; ++g) {
            const Weight& b = *out.weights[g];
            check_weight(op, b);
            DSA_CHECK(b.n == n && b.k == k, op, ": weight of group ", g, " is [", b.n, ", ", b.k,
                      "], expected [", n, ", ", k, "]");
            quantise |= p.precision == Precision::kFp8 && b.is_fp8();
        }
    }
    if (m == 0) return;
    const Arena::Scope scope(exec.scratch);
    const LayerRows rows = make_rows(exec, m, k, p.x, p.ldx, quantise, p.format);
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
           panels_bytes(k, num_threads);
}

}  // namespace dsa::gemm
