#include "gemm/gemm_cuda.h"

#include <algorithm>

#include "base/check.h"
#include "gemm/cuda/jit.h"
#include "gemm/cuda/launch.h"
#include "gemm/cuda/plan.h"

extern "C" const unsigned char dsa_gemm_rows[];

namespace dsa::gemm {
namespace {

using cuda::Groups;
using cuda::Problem;

constexpr int64_t kMaxRows = int64_t{1} << 30;  // kernels count rows and tiles in 32 bits
constexpr int64_t kDecodeRows = 128;  // at most, where the number of rows chooses the family

bool aligned_16(const void* p) {
    return reinterpret_cast<uintptr_t>(p) % 16 == 0;
}

device::Kernel rows_kernel(const char* name) {
    static const device::Library library(dsa_gemm_rows);
    return library.kernel(name, 0);
}

void launch_rows(CudaExec& exec, const char* name, int64_t threads, void** arguments) {
    const int64_t blocks =
        std::clamp<int64_t>((threads + 255) / 256, 1, 16 * int64_t{exec.multiprocessors});
    device::launch(rows_kernel(name), {static_cast<int>(blocks), 256, 1, 0}, arguments,
                   exec.stream);
}

void check_operands(const char* op, const Problem& p, const Activations& a, const Weight& b,
                    const Output& d) {
    DSA_CHECK(p.m >= 1 && p.m * p.num_groups <= kMaxRows && p.n >= 1 && p.k >= 1, op, ": m ", p.m,
              ", n ", p.n, ", k ", p.k, ", groups ", p.num_groups,
              "; expected each >= 1, rows <= ", kMaxRows);
    DSA_CHECK(p.n % 8 == 0 && p.k % 16 == 0, op, ": n ", p.n, ", k ", p.k,
              "; expected multiples of 8 and 16");
    DSA_CHECK(a.dtype == DType::kE4M3, op, ": A is ", to_string(a.dtype), ", expected e4m3");
    DSA_CHECK(b.dtype == DType::kE4M3, op, ": B is ", to_string(b.dtype), ", expected e4m3");
    DSA_CHECK(d.dtype == DType::kBF16 || d.dtype == DType::kF32, op, ": D is ", to_string(d.dtype),
              ", expected bf16 or f32");
    DSA_CHECK(a.data != nullptr && a.scale != nullptr && b.data != nullptr &&
                  b.scale_inv != nullptr && d.data != nullptr,
              op, ": an operand is null");
    DSA_CHECK(aligned_16(a.data) && aligned_16(b.data) && aligned_16(d.data), op,
              ": A, B or D is not 16-byte aligned");
    DSA_CHECK(a.ld >= p.k && a.ld % 16 == 0, op, ": row stride of A ", a.ld,
              ", expected a multiple of 16, >= k ", p.k);
    DSA_CHECK(d.ld >= p.n && d.ld % 8 == 0, op, ": row stride of D ", d.ld,
              ", expected a multiple of 8, >= n ", p.n);
}

// A's scales as the kernels read them: the caller's, or transposed into the workspace.
void set_scales(CudaExec& exec, const char* op, Problem& p, const Activations& a) {
    const int64_t blocks = num_blocks(p.k), groups = p.groups == Groups::kMasked ? p.num_groups : 1;
    if (a.scale_stride_m == 1 && a.scale_stride_k % 4 == 0 && a.scale_stride_k >= p.m &&
        aligned_16(a.scale)) {
        p.a_scale = a.scale;
        p.aligned_m = a.scale_stride_k;
        return;
    }
    p.aligned_m = (p.m + 3) / 4 * 4;
    const int64_t bytes = groups * blocks * p.aligned_m * 4;
    float* to = static_cast<float*>(exec.workspace);
    DSA_CHECK(bytes <= exec.workspace_bytes, op, ": scales of A need ", bytes,
              " bytes of workspace to be transposed, the context has ", exec.workspace_bytes);
    const float* from = a.scale;
    long long stride_m = a.scale_stride_m, stride_k = a.scale_stride_k;
    int g = static_cast<int>(groups), rows = static_cast<int>(p.m), b = static_cast<int>(blocks),
        aligned = static_cast<int>(p.aligned_m);
    void* arguments[] = {&from, &stride_m, &stride_k, &g, &rows, &b, &to, &aligned};
    launch_rows(exec, "transpose_scales", groups * blocks * p.m, arguments);
    p.a_scale = to;
}

Problem problem_of(Groups groups, int64_t m, const Activations& a, const Weight& b,
                   const Output& d) {
    Problem p;
    p.groups = groups;
    p.m = m;
    p.n = b.n;
    p.k = b.k;
    p.a = a.data;
    p.lda = a.ld;
    p.b = b.data;
    p.b_scale = b.scale_inv;
    p.d = d.data;
    p.ldd = d.ld;
    p.f32_out = d.dtype == DType::kF32;
    return p;
}

// From so many expected rows on few groups are empty: which weights come first can be foreseen.
constexpr int64_t kRowsOfMost = 16;

void plan_and_run(CudaExec& exec, const Problem& p, int64_t expected_rows, bool decode_family) {
    const cuda::PlanRequest request{p, expected_rows, decode_family, exec.multiprocessors};
    cuda::Plan plan = cuda::choose_plan(request, cuda::built_kernels(), exec.compile_kernels);
    if (!plan.built && !cuda::why_no_compiler().empty())
        plan = cuda::choose_plan(request, cuda::built_kernels());
    if (exec.explain) exec.explain(cuda::explain(request, plan));
    cuda::Launch launch{plan.config, plan.band, plan.weight_reads == 1, plan.dynamic};
    if (expected_rows >= kRowsOfMost) launch.expected_tiles_m = static_cast<int>(plan.weight_reads);
    cuda::run(exec, launch, p);
}

void run_grouped(CudaExec& exec, const char* op, Problem& p, const CudaGroupedGemm& g,
                 const int32_t* rows) {
    p.num_groups = g.num_groups;
    p.group_rows = rows;
    DSA_CHECK(g.num_groups >= 1 && g.num_groups <= cuda::kMaxGroups, op, ": ", g.num_groups,
              " groups, expected 1 to ", cuda::kMaxGroups);
    DSA_CHECK(rows != nullptr, op, ": the groups' rows are null");
    check_operands(op, p, g.a, g.b, g.d);
    set_scales(exec, op, p, g.a);
    plan_and_run(exec, p, g.expected_rows, false);
}

}  // namespace

void fp8_gemm_nt(CudaExec& exec, const GemmParams& params) {
    constexpr const char* kOp = "fp8_gemm_nt";
    Problem p = problem_of(Groups::kDense, params.m, params.a, params.b, params.d);
    check_operands(kOp, p, params.a, params.b, params.d);
    set_scales(exec, kOp, p, params.a);
    plan_and_run(exec, p, 0, p.m <= kDecodeRows || exec.gemm_family == GemmFamily::kDecode);
}

void m_grouped_fp8_gemm_nt_contiguous(CudaExec& exec, const CudaGroupedContiguousParams& params) {
    Problem p = problem_of(Groups::kContiguous, params.m, params.a, params.b, params.d);
    run_grouped(exec, "m_grouped_fp8_gemm_nt_contiguous", p, params, params.offsets);
}

void m_grouped_fp8_gemm_nt_masked(CudaExec& exec, const CudaGroupedMaskedParams& params) {
    Problem p = problem_of(Groups::kMasked, params.max_m, params.a, params.b, params.d);
    run_grouped(exec, "m_grouped_fp8_gemm_nt_masked", p, params, params.masked_m);
}

void quantize_1x128(CudaExec& exec, const CudaQuantize1x128Params& p) {
    DSA_CHECK(p.m >= 0 && p.m <= kMaxRows && p.k > 0 && p.ldx >= p.k && p.aligned_m >= p.m &&
                  p.aligned_m % 4 == 0,
              "quantize_1x128: m ", p.m, ", k ", p.k, ", row stride ", p.ldx,
              ", row stride of the scales ", p.aligned_m,
              "; expected m >= 0, k > 0, stride >= k, a multiple of 4 >= m");
    if (p.m == 0) return;
    const bf16* x = p.x;
    long long ldx = p.ldx;
    int m = static_cast<int>(p.m), k = static_cast<int>(p.k),
        ue8m0 = p.format == ScaleFormat::kUe8m0, aligned = static_cast<int>(p.aligned_m);
    e4m3* q = p.q;
    float* scale = p.scale;
    void* arguments[] = {&x, &ldx, &m, &k, &ue8m0, &q, &scale, &aligned};
    launch_rows(exec, "quantize_1x128", p.m * num_blocks(p.k) * 32, arguments);
}

}  // namespace dsa::gemm
