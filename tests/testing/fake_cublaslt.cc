// The part of cuBLASLt's interface that bf16_gemm_nt calls, on host memory: what it asks for can be
// checked without a GPU. Matrices are column-major, as cuBLASLt defines them.

#include <cublasLt.h>

#include "base/dtypes.h"

namespace {

struct Layout {
    cudaDataType type;
    int64_t rows, cols, ld;
};
struct Operation {
    cublasComputeType_t compute;
    cudaDataType scale;
    cublasOperation_t a = CUBLAS_OP_N;
};
struct Preference {
    bool workspace = false;
    int alignments = 0;  // of 16 bytes
};

const Layout& layout_of(cublasLtMatrixLayout_t layout) {
    return *reinterpret_cast<const Layout*>(layout);
}

// The sizes of D = op(A) B, or false.
bool fits(const Operation& op, const Layout& a, const Layout& b, const Layout& d) {
    const int64_t rows = op.a == CUBLAS_OP_T ? a.cols : a.rows;
    const int64_t inner = op.a == CUBLAS_OP_T ? a.rows : a.cols;
    return op.compute == CUBLAS_COMPUTE_32F && op.scale == CUDA_R_32F && a.type == CUDA_R_16BF &&
           b.type == CUDA_R_16BF && d.rows == rows && d.cols == b.cols && b.rows == inner &&
           a.ld >= a.rows && b.ld >= b.rows && d.ld >= d.rows;
}

}  // namespace

extern "C" {

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
    *handle = reinterpret_cast<cublasLtHandle_t>(new int(0));
    return CUBLAS_STATUS_SUCCESS;
}
const char* cublasLtGetStatusString(cublasStatus_t) {
    return "refused";
}
cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* desc, cublasComputeType_t compute,
                                        cudaDataType_t scale) {
    *desc = reinterpret_cast<cublasLtMatmulDesc_t>(new Operation{compute, scale});
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc) {
    delete reinterpret_cast<Operation*>(desc);
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc,
                                              cublasLtMatmulDescAttributes_t attribute,
                                              const void* value, size_t bytes) {
    if (attribute != CUBLASLT_MATMUL_DESC_TRANSA || bytes != sizeof(cublasOperation_t))
        return CUBLAS_STATUS_INVALID_VALUE;
    reinterpret_cast<Operation*>(desc)->a = *static_cast<const cublasOperation_t*>(value);
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType type,
                                          uint64_t rows, uint64_t cols, int64_t ld) {
    *layout = reinterpret_cast<cublasLtMatrixLayout_t>(
        new Layout{type, static_cast<int64_t>(rows), static_cast<int64_t>(cols), ld});
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
    delete reinterpret_cast<Layout*>(layout);
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
    *preference = reinterpret_cast<cublasLtMatmulPreference_t>(new Preference);
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
    delete reinterpret_cast<Preference*>(preference);
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void* value, size_t bytes) {
    auto& p = *reinterpret_cast<Preference*>(preference);
    if (attribute == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES)
        p.workspace = bytes == sizeof(uint64_t);
    else
        p.alignments +=
            bytes == sizeof(uint32_t) && *static_cast<const uint32_t*>(value) == 16 ? 1 : 0;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t desc,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int wanted,
                                              cublasLtMatmulHeuristicResult_t* results,
                                              int* found) {
    const auto& p = *reinterpret_cast<const Preference*>(preference);
    const bool good =
        wanted == 1 && p.workspace && p.alignments == 4 &&
        fits(*reinterpret_cast<const Operation*>(desc), layout_of(a), layout_of(b), layout_of(d));
    *found = good ? 1 : 0;
    results[0] = {};
    return good ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}
cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t desc, const void* alpha,
                              const void* a, cublasLtMatrixLayout_t a_layout, const void* b,
                              cublasLtMatrixLayout_t b_layout, const void* beta, const void* c,
                              cublasLtMatrixLayout_t, void* d, cublasLtMatrixLayout_t d_layout,
                              const cublasLtMatmulAlgo_t* algo, void*, size_t, cudaStream_t) {
    const auto& op = *reinterpret_cast<const Operation*>(desc);
    const Layout &la = layout_of(a_layout), &lb = layout_of(b_layout), &ld = layout_of(d_layout);
    if (!fits(op, la, lb, ld) || algo == nullptr || c != d ||
        *static_cast<const float*>(alpha) != 1.0F || *static_cast<const float*>(beta) != 0.0F)
        return CUBLAS_STATUS_INVALID_VALUE;
    for (int64_t col = 0; col < ld.cols; ++col)
        for (int64_t row = 0; row < ld.rows; ++row) {
            double sum = 0.0;
            for (int64_t i = 0; i < lb.rows; ++i) {
                const int64_t at = op.a == CUBLAS_OP_T ? row * la.ld + i : i * la.ld + row;
                sum += double{dsa::to_float(static_cast<const dsa::bf16*>(a)[at])} *
                       double{dsa::to_float(static_cast<const dsa::bf16*>(b)[col * lb.ld + i])};
            }
            const int64_t at = col * ld.ld + row;
            if (ld.type == CUDA_R_32F)
                static_cast<float*>(d)[at] = static_cast<float>(sum);
            else
                static_cast<dsa::bf16*>(d)[at] = dsa::to_bf16(static_cast<float>(sum));
        }
    return CUBLAS_STATUS_SUCCESS;
}

}  // extern "C"
