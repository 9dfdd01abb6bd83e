#pragma once
// Checks of op arguments: a false condition throws dsa::Error(kInvalidArgument) that names the op.

#include "dsa/error.h"

// DSA_CHECK(p.k > 0, "fp8_gemm_nt: k is ", p.k, ", expected > 0");
#define DSA_CHECK(condition, ...)                                                \
    do {                                                                         \
        if (!(condition)) [[unlikely]]                                           \
            ::dsa::throw_error(::dsa::ErrorCode::kInvalidArgument, __VA_ARGS__); \
    } while (false)
