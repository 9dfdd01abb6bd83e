// Plain bf16 products: cuBLASLt, opened at run time.

#if __has_include(<cublasLt.h>)
#include <cublasLt.h>
#define DSA_HAS_CUBLASLT 1
#endif

#include <array>
#include <map>
#include <memory>
#include <mutex>

#include "base/check.h"
#include "gemm/gemm_cuda.h"

namespace dsa::gemm {
namespace {

constexpr const char* kOp = "bf16_gemm_nt";

void check_operands(const GemmParams& p) {
    const Activations& a = p.a;
    const Output& d = p.d;
    const auto aligned = [](const void* x) {
        return x != nullptr && reinterpret_cast<uintptr_t>(x) % 16 == 0;
    };
    DSA_CHECK(p.m >= 1 && p.b.n >= 1 && p.b.k >= 1 && p.b.n % 8 == 0 && p.b.k % 8 == 0, kOp, ": m ",
              p.m, ", n ", p.b.n, ", k ", p.b.k, "; expected each >= 1, n and k multiples of 8");
    DSA_CHECK(a.dtype == DType::kBF16 && p.b.dtype == DType::kBF16, kOp, ": A is ",
              to_string(a.dtype), ", B is ", to_string(p.b.dtype), "; expected bf16");
    DSA_CHECK(d.dtype == DType::kBF16 || d.dtype == DType::kF32, kOp, ": D is ", to_string(d.dtype),
              ", expected bf16 or f32");
    DSA_CHECK(aligned(a.data) && aligned(p.b.data) && aligned(d.data), kOp,
              ": A, B or D is null or not 16-byte aligned");
    DSA_CHECK(a.ld >= p.b.k && a.ld % 8 == 0 && d.ld >= p.b.n && d.ld % 8 == 0, kOp,
              ": row strides of A ", a.ld, " and D ", d.ld, "; expected multiples of 8, >= k ",
              p.b.k, " and n ", p.b.n);
}

#ifdef DSA_HAS_CUBLASLT

// The functions of the library and its handle. Any number of threads.
struct CublasLt {
    decltype(&cublasLtCreate) create;
    decltype(&cublasLtGetStatusString) status_string;
    decltype(&cublasLtMatmulDescCreate) desc_create;
    decltype(&cublasLtMatmulDescDestroy) desc_destroy;
    decltype(&cublasLtMatmulDescSetAttribute) desc_set;
    decltype(&cublasLtMatrixLayoutCreate) layout_create;
    decltype(&cublasLtMatrixLayoutDestroy) layout_destroy;
    decltype(&cublasLtMatmulPreferenceCreate) preference_create;
    decltype(&cublasLtMatmulPreferenceDestroy) preference_destroy;
    decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set;
    decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic;
    decltype(&cublasLtMatmul) matmul;
    cublasLtHandle_t handle = nullptr;
};

CublasLt open_cublaslt() {
    void* library = device::open_toolkit_library("libcublasLt.so", "DSA_CUBLASLT");
    if (library == nullptr)
        throw_error(ErrorCode::kUnsupported, kOp,
                    ": libcublasLt.so of CUDA was not found (DSA_CUBLASLT=PATH names it)");
    CublasLt lt;
    const auto find = [&](auto& function, const char* name) {
        if (!device::find_function(library, name, function))
            throw_error(ErrorCode::kUnsupported, kOp, ": libcublasLt.so has no ", name);
    };
    find(lt.create, "cublasLtCreate");
    find(lt.status_string, "cublasLtGetStatusString");
    find(lt.desc_create, "cublasLtMatmulDescCreate");
    find(lt.desc_destroy, "cublasLtMatmulDescDestroy");
    find(lt.desc_set, "cublasLtMatmulDescSetAttribute");
    find(lt.layout_create, "cublasLtMatrixLayoutCreate");
    find(lt.layout_destroy, "cublasLtMatrixLayoutDestroy");
    find(lt.preference_create, "cublasLtMatmulPreferenceCreate");
    find(lt.preference_destroy, "cublasLtMatmulPreferenceDestroy");
    find(lt.preference_set, "cublasLtMatmulPreferenceSetAttribute");
    find(lt.heuristic, "cublasLtMatmulAlgoGetHeuristic");
    find(lt.matmul, "cublasLtMatmul");
    if (const cublasStatus_t status = lt.create(&lt.handle); status != CUBLAS_STATUS_SUCCESS)
        throw_error(ErrorCode::kUnsupported, kOp, ": cublasLtCreate: ", lt.status_string(status));
    return lt;
}

const CublasLt& cublaslt() {
    static const CublasLt lt = open_cublaslt();
    return lt;
}

void check(cublasStatus_t status, const char* what) {
    if (status != CUBLAS_STATUS_SUCCESS)
        throw_error(ErrorCode::kUnsupported, kOp, ": ", what, ": ",
                    cublaslt().status_string(status));
}

template <typename T>
using Owned = std::unique_ptr<T, cublasStatus_t (*)(T*)>;
using Layout = Owned<cublasLtMatrixLayoutOpaque_t>;

Layout make_layout(cudaDataType_t type, int64_t rows, int64_t cols, int64_t ld) {
    cublasLtMatrixLayout_t layout = nullptr;
    check(cublaslt().layout_create(&layout, type, static_cast<uint64_t>(rows),
                                   static_cast<uint64_t>(cols), ld),
          "cublasLtMatrixLayoutCreate");
    return {layout, cublaslt().layout_destroy};
}

// Column-major, as cuBLASLt sees them: D^T [n, m] = B [n, k] A^T [k, m].
struct Product {
    Owned<cublasLtMatmulDescOpaque_t> desc;
    Layout b, a, d;
};

Product make_product(const GemmParams& p) {
    const CublasLt& lt = cublaslt();
    cublasLtMatmulDesc_t desc = nullptr;
    check(lt.desc_create(&desc, CUBLAS_COMPUTE_32F, CUDA_R_32F), "cublasLtMatmulDescCreate");
    Product product{
        {desc, lt.desc_destroy},
        make_layout(CUDA_R_16BF, p.b.k, p.b.n, p.b.k),
        make_layout(CUDA_R_16BF, p.b.k, p.m, p.a.ld),
        make_layout(p.d.dtype == DType::kF32 ? CUDA_R_32F : CUDA_R_16BF, p.b.n, p.m, p.d.ld)};
    const cublasOperation_t transposed = CUBLAS_OP_T;
    check(lt.desc_set(desc, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed),
          "cublasLtMatmulDescSetAttribute");
    return product;
}

// What cuBLASLt's heuristic picks, asked once a shape.
cublasLtMatmulAlgo_t algorithm(const GemmParams& p, const Product& product,
                               uint64_t workspace_bytes) {
    static std::mutex mutex;
    static std::map<std::array<int64_t, 7>, cublasLtMatmulAlgo_t> known;
    const std::array<int64_t, 7> key{p.m,
                                     p.b.n,
                                     p.b.k,
                                     p.a.ld,
                                     p.d.ld,
                                     static_cast<int64_t>(p.d.dtype),
                                     static_cast<int64_t>(workspace_bytes)};
    const std::lock_guard lock(mutex);
    if (const auto it = known.find(key); it != known.end()) return it->second;

    const CublasLt& lt = cublaslt();
    cublasLtMatmulPreference_t raw = nullptr;
    check(lt.preference_create(&raw), "cublasLtMatmulPreferenceCreate");
    const Owned<cublasLtMatmulPreferenceOpaque_t> preference{raw, lt.preference_destroy};
    check(lt.preference_set(raw, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace_bytes,
                            sizeof workspace_bytes),
          "cublasLtMatmulPreferenceSetAttribute");
    const uint32_t alignment = 16;
    for (const auto attribute :
         {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
          CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES})
        check(lt.preference_set(raw, attribute, &alignment, sizeof alignment),
              "cublasLtMatmulPreferenceSetAttribute");
    cublasLtMatmulHeuristicResult_t result{};
    int found = 0;
    check(lt.heuristic(lt.handle, product.desc.get(), product.b.get(), product.a.get(),
                       product.d.get(), product.d.get(), raw, 1, &result, &found),
          "cublasLtMatmulAlgoGetHeuristic");
    if (found == 0)
        throw_error(ErrorCode::kUnsupported, kOp, ": cuBLASLt has no algorithm for m ", p.m, ", n ",
                    p.b.n, ", k ", p.b.k);
    return known.emplace(key, result.algo).first->second;
}

#endif

}  // namespace

void bf16_gemm_nt(CudaExec& exec, const GemmParams& p) {
    check_operands(p);
#ifdef DSA_HAS_CUBLASLT
    const Product product = make_product(p);
    const auto workspace_bytes = static_cast<uint64_t>(exec.workspace_bytes);
    const cublasLtMatmulAlgo_t algo = algorithm(p, product, workspace_bytes);
    const float one = 1.0F, zero = 0.0F;
    check(cublaslt().matmul(cublaslt().handle, product.desc.get(), &one, p.b.data, product.b.get(),
                            p.a.data, product.a.get(), &zero, p.d.data, product.d.get(), p.d.data,
                            product.d.get(), &algo, exec.workspace, workspace_bytes,
                            static_cast<cudaStream_t>(exec.stream)),
          "cublasLtMatmul");
#else
    (void)exec;
    throw_error(ErrorCode::kUnsupported, kOp, ": built without cublasLt.h");
#endif
}

}  // namespace dsa::gemm
