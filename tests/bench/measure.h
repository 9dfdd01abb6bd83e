#pragma once
// Timing beside the machine's limits, which are measured in between.

#include <benchmark/benchmark.h>

#include <functional>
#include <string>
#include <utility>

#include "base/exec.h"
#include "gemm/limits.h"

namespace dsa::bench {

inline constexpr int kRounds = 12;           // the best one counts
inline constexpr double kLeastRound = 4e-3;  // seconds

struct Machine {
    ThreadPool pool;
    Arena scratch;
    Exec exec;
    gemm::LimitMeter meter;

    Machine(Isa isa, int threads)
        : pool(threads), scratch(int64_t{1} << 30), exec{pool, scratch, isa} {}
};

// Best time of a call; kernels and limits alternate.
double best_time(Machine& machine, const std::function<void()>& call);
// Best times of two calls that take turns.
std::pair<double, double> best_times(Machine& machine, const std::function<void()>& one,
                                     const std::function<void()>& other);

// Least time for so many operations at the machine's rate and so many bytes read.
double least_time(const Machine& machine, double ops, bool int8, double bytes);

// A benchmark that times itself, once.
void add_benchmark(const std::string& name, const std::function<void(benchmark::State&)>& run);
// GFLOP/s, GB/s and `limit` of a call that took so many seconds.
void set_counters(benchmark::State& state, const Machine& machine, double ops, bool int8,
                  double bytes, double seconds);

}  // namespace dsa::bench
