#pragma once
// Work split of the CPU products: tasks of tiles, cut into ranges for the threads by cost.
// Private to the module's .cc files.

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>

#include "base/exec.h"

namespace dsa::gemm {

// A task has `units` pieces of equal cost.
struct TaskSize {
    int64_t units;
    int64_t unit_cost;
};

// Calls body(task, first, last) for the units that start in begin .. end of the costs of all tasks,
// one behind the other.
template <typename Size, typename Body>
void for_units(int64_t num_tasks, const Size& size, int64_t begin, int64_t end, const Body& body) {
    int64_t cost = 0;  // of the units before this one
    for (int64_t i = 0; i < num_tasks && cost < end; ++i) {
        const TaskSize s = size(i);
        const int64_t task_cost = s.units * s.unit_cost;
        if (task_cost == 0) continue;
        const int64_t skip = begin > cost ? (begin - cost + s.unit_cost - 1) / s.unit_cost : 0;
        const int64_t stop = std::min(s.units, (end - cost + s.unit_cost - 1) / s.unit_cost);
        if (skip < stop) body(i, skip, stop);
        cost += task_cost;
    }
}

// Pieces of a thread's range that have been taken.
struct alignas(64) TakenPieces {
    std::atomic<int64_t> count{0};
};

// Calls body(task, first, last, thread) for ranges of units that cover every task; size(i) gives
// TaskSize of task i. Each thread has a contiguous range of its own, in pieces; a thread that is
// done with its pieces takes those that others have left: cores that somebody else uses too do not
// keep pace.
template <typename Size, typename Body>
void for_each_range(Exec& exec, int64_t num_tasks, const Size& size, const Body& body) {
    constexpr int64_t kMostPieces = 16;
    constexpr int64_t kLeastUnits = 4;  // of a piece
    int64_t total = 0;
    int64_t unit_cost = 0;
    for (int64_t i = 0; i < num_tasks; ++i) {
        total += size(i).units * size(i).unit_cost;
        if (size(i).units > 0) unit_cost = std::max(unit_cost, size(i).unit_cost);
    }
    if (total == 0) return;
    const int64_t threads = exec.pool.num_threads();
    const int64_t pieces = std::clamp<int64_t>(total / threads / (unit_cost * kLeastUnits), 1,
                                               threads > 1 ? kMostPieces : 1);
    const int64_t all = threads * pieces;
    const auto start = [&](int64_t piece) {
        return total / all * piece + total % all * piece / all;
    };
    const Arena::Scope scope(exec.scratch);
    auto* taken = exec.scratch.alloc<TakenPieces>(threads);
    std::uninitialized_default_construct_n(taken, threads);
    exec.pool.parallel_for(threads, [&](int64_t, int64_t, int thread) {
        for (int64_t i = 0; i < threads; ++i) {
            const int64_t owner = (thread + i) % threads;
            std::atomic<int64_t>& count = taken[owner].count;
            for (int64_t n; (n = count.fetch_add(1, std::memory_order_relaxed)) < pieces;) {
                const int64_t piece = owner * pieces + n;
                for_units(num_tasks, size, start(piece), start(piece + 1),
                          [&](int64_t task, int64_t first, int64_t last) {
                              body(task, first, last, thread);
                          });
            }
        }
    });
}

// Scratch that for_each_range takes.
inline int64_t for_each_range_bytes(int num_threads) {
    return Arena::bytes_for<TakenPieces>(num_threads);
}

}  // namespace dsa::gemm
