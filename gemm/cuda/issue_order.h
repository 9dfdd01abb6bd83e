#pragma once
// How the promotions of a compiled kernel are issued: control bits of its machine code.
//
// A promotion is a run of total = fma(chain, scale, total), two registers and a scale that stays.
// It runs beside the other warpgroup's products, whose sums go through the same register ports. An
// instruction can keep an operand for the next one (reuse), which then reads one register less, as
// long as the warp does not yield between them. ptxas keeps the scale for every second instruction.
// Keeping it for three in a row and then yielding for a clock longer is faster at many rows, never
// yielding much slower (measured).

#include <cstdint>
#include <span>
#include <vector>

#include "gemm/cuda/kernel_config.h"

namespace dsa::gemm::cuda {

// Whether the kernel gains: A on side M and long runs.
constexpr bool gains_by_issue_order(const KernelConfig& c) {
    return !c.swapped && c.math_groups == 2 && c.tile_n >= 128;
}

// A copy of the cubin (an ELF file for sm_90a) with these control bits; results are the same bits.
// What it does not understand it leaves as it is.
std::vector<unsigned char> with_issue_order(const unsigned char* cubin);

// Bytes of a cubin, from its section headers.
size_t cubin_size(const unsigned char* cubin);

}  // namespace dsa::gemm::cuda
