#pragma once
// Which kernel runs a product: a model of its time, nothing is tried out. Host logic only.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/cuda_exec.h"
#include "gemm/cuda/built_kernels.h"
#include "gemm/cuda/product_shape.h"

namespace dsa::gemm::cuda {

struct PlanRequest : ProductShape {
    int64_t expected_rows = 0;   // of a group; 0: m / num_groups, masked: m
    bool decode_family = false;  // dense: the order of sums of up to 128 rows
    int multiprocessors = 132;
};

struct Plan {
    KernelConfig config;
    bool built = true;         // not to be compiled at run time
    int band = 8;              // tiles along m next to one another in the order of tiles
    int64_t weight_reads = 1;  // times that each group's weight goes to the multiprocessors
    bool dynamic = false;      // how blocks get their tiles (launch.h)
    double waves = 0.0;  // rounds of tiles over the multiprocessors, the last one may be partial
    double multiply_us = 0.0;  // of the tensor cores, or of shared memory that feeds them
    double memory_us = 0.0;    // each operand read or written once, or what tiles read from L2
    double us() const;
};

// Blocks that share the k of a tile in the decode family. Depends on n, k and the device only, so
// that a row's bits do not depend on the other rows.
int decode_split(int64_t n, int64_t k, int multiprocessors);

// The kernels that the family has for a request, built or not.
std::vector<KernelConfig> family_for(const PlanRequest& r);

// Of the built kernels, or, if `may_compile`, of all: where none of the built ones is as good.
// Throws kInternal if no kernel serves.
Plan choose_plan(const PlanRequest& r, std::span<const BuiltKernel> kernels,
                 bool may_compile = false);

// The kernel in words: roles of the operands, rows by columns of a tile, blocks that share k.
std::string describe(const KernelConfig& c);

// One line: the pick, its times and what bounds it.
std::string explain(const PlanRequest& r, const Plan& plan);

}  // namespace dsa::gemm::cuda
