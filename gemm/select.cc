#include "gemm/cpu/select.h"

namespace dsa::gemm::cpu {

#if defined(__x86_64__)

const Kernels& kernels_for(Isa isa) {
    switch (isa) {
        case Isa::kAvx2:
            return kAvx2Kernels;
        case Isa::kAvx512:
            return kAvx512Kernels;
        case Isa::kAvx512Bf16:
            return kAvx512Bf16Kernels;
        case Isa::kPortable:
            break;
    }
    return kPortableKernels;
}

const Int8Kernels& int8_kernels_for(Isa isa) {
    switch (isa) {
        case Isa::kAvx2:
            return kAvx2Int8Kernels;
        case Isa::kAvx512:  // the first CPUs with AVX-512 lack VNNI
            return cpu_has_vnni() ? kVnniInt8Kernels : kAvx2Int8Kernels;
        case Isa::kAvx512Bf16:
            return kVbmiInt8Kernels;
        case Isa::kPortable:
            break;
    }
    return kPortableInt8Kernels;
}

#else

const Kernels& kernels_for(Isa) {
    return kPortableKernels;
}
const Int8Kernels& int8_kernels_for(Isa) {
    return kPortableInt8Kernels;
}

#endif

}  // namespace dsa::gemm::cpu
