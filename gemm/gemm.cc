#include "gemm/gemm.h"

#include "base/check.h"
#include "gemm/products.h"

namespace dsa::gemm {
namespace {

void check_operands(const char* op, const Activations& a, const Weight& b, DType a_type,
                    DType b_type) {
    check_weight(op, b);
    DSA_CHECK(a.dtype == a_type && b.dtype == b_type, op, ": operands ", to_string(a.dtype), " x ",
              to_string(b.dtype), ", expected ", to_string(a_type), " x ", to_string(b_type));
    DSA_CHECK(a.ld >= b.k, op, ": row stride of A ", a.ld, ", expected at least k = ", b.k);
    DSA_CHECK(a_type == DType::kBF16 || a.scale != nullptr, op, ": ", to_string(a_type),
              " rows without scales");
}

void dense(Exec& exec, const char* op, const GemmParams& p, DType a_type, DType b_type) {
    DSA_CHECK(p.m >= 1, op, ": m is ", p.m, ", expected >= 1");
    check_operands(op, p.a, p.b, a_type, b_type);
    check_output(op, p.d, p.b.n);
    const Arena::Scope scope(exec.scratch);
    Task t{p.m, pack_rows(exec, p.m, p.b.k, Rows::of(p.a)), p.b, p.d};
    run_tasks(exec, {&t, 1});
}

void check_groups(const char* op, const GroupedGemm& p, DType a_type) {
    const Weight& b = *p.b[0];
    check_output(op, p.d, b.n);
    for (int64_t g = 0; g < p.num_groups; ++g) {
        check_operands(op, p.a, *p.b[g], a_type, DType::kE4M3);
        DSA_CHECK(p.b[g]->n == b.n && p.b[g]->k == b.k, op, ": weight of group ", g, " is [",
                  p.b[g]->n, ", ", p.b[g]->k, "], expected [", b.n, ", ", b.k, "]");
    }
}

// rows_of(g): the rows of group g.
template <typename RowsOf>
void grouped(Exec& exec, const char* op, const GroupedGemm& p, DType a_type,
             const RowsOf& rows_of) {
    check_groups(op, p, a_type);
    const Arena::Scope scope(exec.scratch);
    const int64_t k = p.b[0]->k;
    auto* tasks = exec.scratch.alloc<Task>(p.num_groups);
    auto* ranges = exec.scratch.alloc<RowRange>(p.num_groups);
    for (int64_t g = 0; g < p.num_groups; ++g) ranges[g] = rows_of(g);
    const Rows rows =
        pack_ranges(exec, {ranges, static_cast<size_t>(p.num_groups)}, k, Rows::of(p.a));
    int64_t before = 0;  // packed rows lie one behind another
    for (int64_t g = 0; g < p.num_groups; ++g) {
        Task& t = tasks[g];
        t = {ranges[g].count, rows.from_packed(before, ranges[g].first, k), *p.b[g], p.d};
        t.d.data = static_cast<uint8_t*>(p.d.data) + ranges[g].first * p.d.ld * size_of(p.d.dtype);
        before += ranges[g].count;
    }
    run_tasks(exec, {tasks, static_cast<size_t>(p.num_groups)});
}

void contiguous(Exec& exec, const char* op, const GroupedContiguousParams& p, DType a_type) {
    DSA_CHECK(p.num_groups >= 1, op, ": ", p.num_groups, " groups, expected >= 1");
    DSA_CHECK(p.offsets[0] == 0, op, ": offsets start at ", p.offsets[0], ", expected 0");
    for (int64_t g = 0; g < p.num_groups; ++g)
        DSA_CHECK(p.offsets[g + 1] >= p.offsets[g], op, ": offsets of group ", g, " descend from ",
                  p.offsets[g], " to ", p.offsets[g + 1]);
    grouped(exec, op, p, a_type, [&](int64_t g) {
        return RowRange{p.offsets[g], p.offsets[g + 1] - p.offsets[g]};
    });
}

void masked(Exec& exec, const char* op, const GroupedMaskedParams& p, DType a_type) {
    DSA_CHECK(p.num_groups >= 1 && p.max_m >= 1, op, ": ", p.num_groups, " groups of at most ",
              p.max_m, " rows, expected both >= 1");
    for (int64_t g = 0; g < p.num_groups; ++g)
        DSA_CHECK(p.masked_m[g] >= 0 && p.masked_m[g] <= p.max_m, op, ": group ", g, " has ",
                  p.masked_m[g], " rows, expected 0 to ", p.max_m);
    grouped(exec, op, p, a_type, [&](int64_t g) { return RowRange{g * p.max_m, p.masked_m[g]}; });
}

}  // namespace

int64_t gemm_scratch_bytes(int64_t m, int64_t k, int num_threads) {
    return pack_rows_bytes(m, k, num_threads) + run_tasks_bytes(k, num_threads);
}

int64_t grouped_gemm_scratch_bytes(int64_t rows, int64_t k, int64_t num_groups, int num_threads) {
    return gemm_scratch_bytes(rows, k, num_threads) + Arena::bytes_for<Task>(num_groups) +
           Arena::bytes_for<RowRange>(num_groups);
}

void fp8_gemm_nt(Exec& exec, const GemmParams& p) {
    dense(exec, "fp8_gemm_nt", p, DType::kE4M3, DType::kE4M3);
}

void bf16_fp8_gemm_nt(Exec& exec, const GemmParams& p) {
    dense(exec, "bf16_fp8_gemm_nt", p, DType::kBF16, DType::kE4M3);
}

void int8_fp8_gemm_nt(Exec& exec, const GemmParams& p) {
    dense(exec, "int8_fp8_gemm_nt", p, DType::kI8, DType::kE4M3);
}

void bf16_gemm_nt(Exec& exec, const GemmParams& p) {
    dense(exec, "bf16_gemm_nt", p, DType::kBF16, DType::kBF16);
}

void m_grouped_fp8_gemm_nt_contiguous(Exec& exec, const GroupedContiguousParams& p) {
    contiguous(exec, "m_grouped_fp8_gemm_nt_contiguous", p, DType::kE4M3);
}

void m_grouped_bf16_fp8_gemm_nt_contiguous(Exec& exec, const GroupedContiguousParams& p) {
    contiguous(exec, "m_grouped_bf16_fp8_gemm_nt_contiguous", p, DType::kBF16);
}

void m_grouped_int8_fp8_gemm_nt_contiguous(Exec& exec, const GroupedContiguousParams& p) {
    contiguous(exec, "m_grouped_int8_fp8_gemm_nt_contiguous", p, DType::kI8);
}

void m_grouped_fp8_gemm_nt_masked(Exec& exec, const GroupedMaskedParams& p) {
    masked(exec, "m_grouped_fp8_gemm_nt_masked", p, DType::kE4M3);
}

void m_grouped_bf16_fp8_gemm_nt_masked(Exec& exec, const GroupedMaskedParams& p) {
    masked(exec, "m_grouped_bf16_fp8_gemm_nt_masked", p, DType::kBF16);
}

void m_grouped_int8_fp8_gemm_nt_masked(Exec& exec, const GroupedMaskedParams& p) {
    masked(exec, "m_grouped_int8_fp8_gemm_nt_masked", p, DType::kI8);
}

}  // namespace dsa::gemm
