#pragma once
// How much memory this process may still use.

#include <cstdint>

namespace dsa {

// Bytes: the smaller of the system's available memory and what the process's cgroup (v2 or v1)
// still allows; INT64_MAX where neither can be read.
int64_t available_memory();

}  // namespace dsa
