#pragma once
// Benchmarks of the absorbed products of attention.

#include "bench/measure.h"

namespace dsa::bench {

// kv_b batched by head: nn, W_UK reduced over its rows, and nt, W_UV over its columns.
void register_batched(Machine& machine);

}  // namespace dsa::bench
