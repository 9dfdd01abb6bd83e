#pragma once
// How much memory this process may still use.

#include <cstdint>
#include <string>

namespace dsa {

// Bytes: the smaller of the system's available memory and what the process's cgroup (v2 or v1)
// still allows; INT64_MAX where neither can be read. Page cache counts as available. `root` is put
// in front of /proc and /sys.
int64_t available_memory(const std::string& root = "");

}  // namespace dsa
