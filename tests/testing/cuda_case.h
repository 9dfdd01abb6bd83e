#pragma once
// A product on the GPU with random operands, and its check against double precision.

#include <cstdint>
#include <vector>

#include "base/cuda_exec.h"
#include "gemm/cuda/launch.h"

namespace dsa::testing {

// Shape of a case. rows: of each group (dense: one).
struct CudaShape {
    gemm::cuda::Groups groups = gemm::cuda::Groups::kDense;
    std::vector<int> rows;
    int64_t n = 0, k = 0;
    int64_t max_m = 0;  // masked: room for each group; 0: the most rows, rounded up to 64

    int64_t total_rows() const;
    double flops() const;
    double bytes(bool f32_out) const;  // each operand once
};

// Random e4m3 codes of A and B.
enum class Codes {
    kSmall,      // of values with a deviation of 3: subnormals are among them
    kQuantised,  // as quantisers make them: the largest of each scale's block is 448
};

class CudaCase {
  public:
    CudaCase(device::Stream& stream, const CudaShape& shape, bool f32_out, uint64_t seed,
             Codes codes = Codes::kSmall);

    const gemm::cuda::Problem& problem() const { return problem_; }
    // The public operator.
    void run(CudaExec& exec) const;
    // B and the first rows of A of another dense case of the same n and k that has at least as many
    // rows.
    void copy_operands(const CudaCase& from);
    // Before a run that is checked: no element of D may keep this.
    void poison();
    // ||d - reference|| / ||reference|| over all rows, or some of them, of each group. Throws if an
    // element was not written, or one behind a group's end was.
    double check();
    // D as it is.
    std::vector<uint8_t> output() const;

  private:
    void choose_rows();

    device::Stream& stream_;
    CudaShape shape_;
    int64_t d_rows_ = 0;
    device::Library library_;
    device::Buffer a_, a_scale_, b_, b_scale_, d_, group_rows_, rows_, scale_cols_, groups_,
        reference_;
    std::vector<int> checked_rows_, checked_groups_, checked_cols_;
    gemm::cuda::Problem problem_;
};

}  // namespace dsa::testing
