#pragma once
// Picks a module's kernel table for an ISA.

#include "base/isa.h"

namespace dsa {

// The tables are the module's kPortableKernels, kAvx2Kernels, kAvx512Kernels and
// kAvx512Bf16Kernels.
#if defined(__x86_64__)
template <typename Table>
const Table& select_kernels(Isa isa, const Table& portable, const Table& avx2, const Table& avx512,
                            const Table& avx512_bf16) {
    switch (isa) {
        // CPUs with AMX have VDPBF16PS at half the rate of fp32 multiply-adds (measured on Granite
        // Rapids): modules without kernels of their own for AMX do not want it there.
        case Isa::kAmx:
        case Isa::kAvx512:
            return avx512;
        case Isa::kAvx512Bf16:
            return avx512_bf16;
        case Isa::kAvx2:
            return avx2;
        case Isa::kPortable:
            break;
    }
    return portable;
}
#define DSA_SELECT_KERNELS(isa) \
    ::dsa::select_kernels(isa, kPortableKernels, kAvx2Kernels, kAvx512Kernels, kAvx512Bf16Kernels)
#else
#define DSA_SELECT_KERNELS(isa) (static_cast<void>(isa), kPortableKernels)
#endif

}  // namespace dsa
