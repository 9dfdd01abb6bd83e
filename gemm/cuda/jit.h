#pragma once
// Kernels of the family that were not built ahead: NVRTC, opened at run time, compiles them from
// the same source, which is part of the library; they are kept in a folder. Any number of threads.

#include <filesystem>
#include <string>
#include <vector>

#include "gemm/cuda/kernel_config.h"

namespace dsa::gemm::cuda {

// Why no kernel can be compiled ("" if one can): CUDA's libnvrtc.so is not there (DSA_NVRTC=PATH
// names it).
std::string why_no_compiler();

// $XDG_CACHE_HOME/dsa/cuda, or that in ~/.cache; empty where neither is known: nothing is kept.
std::filesystem::path kernel_cache_folder();

// What a kept kernel depends on: a digest of the source, the compiler, the architecture, the
// config.
std::string kernel_file_name(const KernelConfig& c);

// The cubin, from `folder` or compiled (about a second) and put there. What a file holds is
// checked; a damaged one is replaced. A folder that cannot be written costs the next process the
// time, no more. Throws kUnsupported without a compiler, kInternal with its log if it refuses the
// source.
std::vector<unsigned char> compiled_kernel(const KernelConfig& c,
                                           const std::filesystem::path& folder);

}  // namespace dsa::gemm::cuda
