#include "gemm/cpu/select.h"

#include "base/dispatch.h"

namespace dsa::gemm::cpu {

const Kernels& kernels_for(Isa isa) {
#if defined(__x86_64__)
    if (isa == Isa::kAmx) return kAmxKernels;
#endif
    return DSA_SELECT_KERNELS(isa);
}

#if defined(__x86_64__)

const Int8Kernels& int8_kernels_for(Isa isa) {
    switch (isa) {
        case Isa::kAvx2:
            return kAvx2Int8Kernels;
        case Isa::kAvx512:  // the first CPUs with AVX-512 lack VNNI
            return cpu_has_vnni() ? kVnniInt8Kernels : kAvx2Int8Kernels;
        case Isa::kAvx512Bf16:
            return kVbmiInt8Kernels;
        case Isa::kAmx:
            return kAmxInt8Kernels;
        case Isa::kPortable:
            break;
    }
    return kPortableInt8Kernels;
}

#else

const Int8Kernels& int8_kernels_for(Isa) {
    return kPortableInt8Kernels;
}

#endif

}  // namespace dsa::gemm::cpu
