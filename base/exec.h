#pragma once
// The execution context: first argument of every op. It names where an op runs (ISA, threads) and
// where its temporary memory comes from. One context belongs to one session and one thread at a
// time; the pool may be shared between contexts.

#include <atomic>

#include "base/arena.h"
#include "base/isa.h"
#include "base/thread_pool.h"
#include "dsa/error.h"

namespace dsa {

struct Exec {
    ThreadPool& pool;
    Arena& scratch;
    Isa isa;
    // Asked between the steps of a long call (null: never stop).
    const std::atomic<bool>* stop = nullptr;

    void check_stop() const {
        if (stop != nullptr && stop->load(std::memory_order_relaxed))
            throw_error(ErrorCode::kCancelled, "cancelled");
    }
};

}  // namespace dsa
