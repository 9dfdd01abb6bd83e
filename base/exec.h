#pragma once
// The execution context: first argument of every op. It names where an op runs (ISA, threads) and
// where its temporary memory comes from. One context belongs to one session and one thread at a
// time; the pool may be shared between contexts.

#include "base/arena.h"
#include "base/isa.h"
#include "base/thread_pool.h"

namespace dsa {

struct Exec {
    ThreadPool& pool;
    Arena& scratch;
    Isa isa;
};

}  // namespace dsa
