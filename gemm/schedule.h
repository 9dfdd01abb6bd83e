#pragma once
// Work split of the CPU products: tasks of tiles, cut into one contiguous range a thread by cost.
// Private to the module's .cc files.

#include <algorithm>
#include <cstdint>

#include "base/exec.h"

namespace dsa::gemm {

// A task has `units` pieces of equal cost.
struct TaskSize {
    int64_t units;
    int64_t unit_cost;
};

// Calls body(task, first, last, thread) for ranges of units that cover every task; size(i) gives
// TaskSize of task i. Which thread runs a unit depends on the sizes alone.
template <typename Size, typename Body>
void for_each_range(ThreadPool& pool, int64_t num_tasks, const Size& size, const Body& body) {
    int64_t total = 0;
    for (int64_t i = 0; i < num_tasks; ++i) total += size(i).units * size(i).unit_cost;
    if (total == 0) return;
    const int threads = pool.num_threads();
    pool.parallel_for(threads, [&](int64_t first, int64_t last, int thread) {
        const int64_t begin = total / threads * first + total % threads * first / threads;
        const int64_t end = total / threads * last + total % threads * last / threads;
        int64_t cost = 0;  // of the units before this one; a unit belongs to the range it starts in
        for (int64_t i = 0; i < num_tasks && cost < end; ++i) {
            const TaskSize s = size(i);
            const int64_t task_cost = s.units * s.unit_cost;
            if (task_cost == 0) continue;
            const int64_t skip = begin > cost ? (begin - cost + s.unit_cost - 1) / s.unit_cost : 0;
            const int64_t stop = std::min(s.units, (end - cost + s.unit_cost - 1) / s.unit_cost);
            if (skip < stop) body(i, skip, stop, thread);
            cost += task_cost;
        }
    });
}

}  // namespace dsa::gemm
