#include "base/isa.h"

#include <algorithm>
#include <cstdlib>
#include <string>

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "dsa/error.h"

namespace dsa {
namespace {

constexpr Isa kAllIsas[] = {Isa::kPortable, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16, Isa::kAmx};

#if defined(__x86_64__)

// Compilers of today do not all know AMX by name (__builtin_cpu_supports).
bool cpu_has_amx() {
    constexpr unsigned kAmx = 1U << 22 | 1U << 24 | 1U << 25;  // AMX-BF16, AMX-TILE, AMX-INT8
    unsigned eax = 0;
    unsigned ebx = 0;
    unsigned ecx = 0;
    unsigned edx = 0;
    return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 && (edx & kAmx) == kAmx;
}

// Linux asks a process to request the state of AMX before it uses it; all of its threads may then.
bool system_grants_tiles() {
#if defined(__linux__)
    constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
    constexpr long kTileData = 18;               // XFEATURE_XTILEDATA
    return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
    return false;
#endif
}

#endif

bool cpu_has(Isa isa) {
#if defined(__x86_64__)
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                        __builtin_cpu_supports("fma");
    const bool bf16 = avx512 && __builtin_cpu_supports("avx512bf16") &&
                      __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vnni");
    switch (isa) {
        case Isa::kPortable:
            return true;
        case Isa::kAvx2:
            // F16C is older than AVX2 and came with every CPU that has it.
            return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
        case Isa::kAvx512:
            return avx512;
        case Isa::kAvx512Bf16:
            return bf16;
        case Isa::kAmx:
            return bf16 && cpu_has_amx() && system_grants_tiles();
    }
    return false;
#else
    return isa == Isa::kPortable;
#endif
}

std::string supported_names() {
    std::string names;
    for (Isa isa : supported_isas())
        names += (names.empty() ? "" : ", ") + std::string(to_string(isa));
    return names;
}

}  // namespace

const char* to_string(Isa isa) {
    switch (isa) {
        case Isa::kPortable:
            return "portable";
        case Isa::kAvx2:
            return "avx2";
        case Isa::kAvx512:
            return "avx512";
        case Isa::kAvx512Bf16:
            return "avx512_bf16";
        case Isa::kAmx:
            return "amx";
    }
    return "?";
}

const std::vector<Isa>& supported_isas() {
    static const std::vector<Isa> isas = [] {
        std::vector<Isa> found;
        for (Isa isa : kAllIsas)
            if (cpu_has(isa)) found.push_back(isa);
#if defined(__x86_64__)
        // Intel's VDPBF16PS has half the rate of fp32 multiply-adds (measured on Granite Rapids).
        const auto bf16 = std::find(found.begin(), found.end(), Isa::kAvx512Bf16);
        if (bf16 != found.end() && __builtin_cpu_is("intel")) std::iter_swap(bf16, bf16 - 1);
#endif
        return found;
    }();
    return isas;
}

bool cpu_has_vnni() {
#if defined(__x86_64__)
    return cpu_has(Isa::kAvx512) && __builtin_cpu_supports("avx512vnni");
#else
    return false;
#endif
}

bool cpu_prefers_l2_prefetches() {
#if defined(__x86_64__)
    return cpu_has(Isa::kAvx512) && __builtin_cpu_is("amdfam19h");
#else
    return false;
#endif
}

bool cpu_follows_runs() {
#if defined(__x86_64__)
    return cpu_has(Isa::kAvx512) && __builtin_cpu_is("intel");
#else
    return false;
#endif
}

Isa resolve_isa(std::string_view name) {
    const char* source = "isa";
    if (name.empty()) {
        const char* env = std::getenv("DSA_ISA");
        if (env == nullptr || *env == '\0') return supported_isas().back();
        name = env;
        source = "DSA_ISA";
    }
    for (Isa isa : kAllIsas) {
        if (name != to_string(isa)) continue;
        if (!cpu_has(isa))
            throw_error(ErrorCode::kUnsupported, source, " is '", name,
                        "', which this CPU lacks; it has ", supported_names());
        return isa;
    }
    throw_error(ErrorCode::kInvalidArgument, source, " is '", name,
                "', expected one of: ", supported_names());
}

}  // namespace dsa
