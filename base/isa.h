#pragma once
// Instruction sets that kernels are written for. Each module has one kernel table an
// ISA; an engine chooses once and passes the choice along in its execution context.

#include <string_view>
#include <vector>

namespace dsa {

// kAmx needs the operating system's consent as well, which is asked for when ISAs are listed: from
// then on Linux refuses alternate signal stacks that are too small for the state of tiles
// (sigaltstack).
enum class Isa { kPortable, kAvx2, kAvx512, kAvx512Bf16, kAmx };

// "portable", "avx2", "avx512", "avx512_bf16", "amx": the spelling of DSA_ISA and --isa.
const char* to_string(Isa isa);

// ISAs that this build has kernels for and this CPU runs, portable first, best last.
const std::vector<Isa>& supported_isas();

// Whether the CPU has AVX-512 VNNI: the int8 products of kAvx512 use it where it is there.
bool cpu_has_vnni();

// Whether prefetches of what is read much later should ask for L2 instead of L1 (measured): true
// for Zen 4, where memory then serves twice as much.
bool cpu_prefers_l2_prefetches();

// Whether the hardware follows a dozen and more long ascending runs at a time by itself, and
// software prefetches of their lines are in its way (measured on Granite Rapids): true for Intel's
// CPUs with AVX-512.
bool cpu_follows_runs();

// The ISA to use: `name` if not empty, else the environment's DSA_ISA if set, else the best one.
// Throws kInvalidArgument for an unknown name, kUnsupported for one this CPU lacks.
Isa resolve_isa(std::string_view name);

}  // namespace dsa
