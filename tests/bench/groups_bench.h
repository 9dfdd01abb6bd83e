#pragma once
// Benchmarks that compare our products with one another, and what a parallel region costs.

#include "bench/measure.h"

namespace dsa::bench {

// 32 experts of 5 to 40 rows: the grouped product against one call an expert (`of_singles`: the
// singles' time / the grouped one's).
void register_groups(Machine& machine);

// 10 % subnormal codes against none (`cost`: the first time / the second).
void register_subnormals(Machine& machine);

// A parallel region with nothing to do.
void register_region(Machine& machine);

}  // namespace dsa::bench
