#pragma once
// Bounds what operator new hands out: allocation_budget.cc replaces it in a program that links it.
// A request beyond the budget throws std::bad_alloc, which the library never expects, and is
// remembered. What the memory plan covers (caches, scratch, copies) is mapped, not counted here.

#include <cstdint>

namespace dsa::testing {

// Bytes that may live beside those that live now; forgets the excess seen before.
void set_allocation_budget(int64_t bytes);
// The first request that did not fit, in bytes; 0: none.
int64_t refused_allocation();

}  // namespace dsa::testing
