#include "bench/measure.h"

#include <algorithm>
#include <chrono>

namespace dsa::bench {
namespace {

double seconds_of(const std::function<void()>& work) {
    const auto start = std::chrono::steady_clock::now();
    work();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// A call as often as makes a round.
struct Timed {
    const std::function<void()>& call;
    int repeats;
    double best;

    explicit Timed(const std::function<void()>& c) : call(c), repeats(1), best(0) {
        call();
        best = seconds_of(call);
        repeats = std::max(1, static_cast<int>(kLeastRound / best));
    }
    double seconds() const { return best * repeats; }  // of a round
    void round() {
        best = std::min(best, seconds_of([&] {
                                  for (int i = 0; i < repeats; ++i) call();
                              }) / repeats);
    }
};

// For as long as the round that follows, within reason.
void measure_limits(Machine& machine, int round, const Timed& next) {
    const double seconds = std::min(next.seconds(), 0.1);
    machine.meter.multiply_round(machine.exec, seconds);
    if (round % 4 == 0) machine.meter.read_round(machine.exec, seconds);
}

}  // namespace

double best_time(Machine& machine, const std::function<void()>& call) {
    Timed timed(call);
    for (int round = 0; round < kRounds; ++round) {
        measure_limits(machine, round, timed);
        timed.round();
    }
    return timed.best;
}

std::pair<double, double> best_times(Machine& machine, const std::function<void()>& one,
                                     const std::function<void()>& other) {
    Timed first(one);
    Timed second(other);
    for (int round = 0; round < kRounds; ++round) {
        measure_limits(machine, round, first);
        // What comes right after the limits finds the caches full of other things.
        if (round % 2 == 0) first.round();
        second.round();
        if (round % 2 != 0) first.round();
    }
    return {first.best, second.best};
}

double least_time(const Machine& machine, double ops, bool int8, double bytes) {
    const MachineLimits& limits = machine.meter.limits();
    const double peak = int8 ? limits.int8_ops : limits.mul_ops;
    return std::max(bytes / limits.read_bytes, peak > 0.0 ? ops / peak : 0.0);
}

void add_benchmark(const std::string& name, const std::function<void(benchmark::State&)>& run) {
    benchmark::RegisterBenchmark(name.c_str(), run)
        ->UseManualTime()
        ->Iterations(1)
        ->Unit(benchmark::kMicrosecond);
}

void set_counters(benchmark::State& state, const Machine& machine, double ops, bool int8,
                  double bytes, double seconds) {
    state.counters["GFLOP/s"] = ops / seconds * 1e-9;
    state.counters["GB/s"] = bytes / seconds * 1e-9;
    state.counters["limit"] = least_time(machine, ops, int8, bytes) / seconds;
}

}  // namespace dsa::bench
