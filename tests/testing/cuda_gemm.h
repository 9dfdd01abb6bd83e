#pragma once
// What the tests of the CUDA products share: a stream, a context and shapes.

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "base/cuda_exec.h"
#include "testing/cuda_case.h"

namespace dsa::testing {

// Relative L2 errors that D may have.
inline constexpr double kBf16Error = 0.002, kF32Error = 0.0005;

inline CudaShape dense(int m, int64_t n, int64_t k) {
    CudaShape s;
    s.rows = {m};
    s.n = n;
    s.k = k;
    return s;
}

class CudaGemm : public ::testing::Test {
  protected:
    double error(const CudaShape& s, bool f32) {
        CudaCase test(stream_, s, f32, seed_++);
        test.poison();
        test.run(exec_);
        return test.check();
    }
    std::vector<uint8_t> bits(CudaCase& test) {
        test.poison();
        test.run(exec_);
        return test.output();
    }

    device::Stream stream_;
    CudaExec exec_ = make_cuda_exec(stream_.handle());
    uint64_t seed_ = 1;
};

}  // namespace dsa::testing
