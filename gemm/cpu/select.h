#pragma once
// The module's kernel tables, by ISA.

#include "base/isa.h"
#include "gemm/cpu/kernels.h"

namespace dsa::gemm::cpu {

const Kernels& kernels_for(Isa isa);
const Int8Kernels& int8_kernels_for(Isa isa);

}  // namespace dsa::gemm::cpu
