#include "gemm/limits.h"

#include <algorithm>
#include <atomic>
#include <chrono>

#include "gemm/cpu/select.h"

namespace dsa::gemm {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

constexpr int64_t kMultiplyRounds = 100'000;

// Prefetch distances in bytes, 0 for none: which one reads faster depends on the CPU.
constexpr int64_t kReadAhead[] = {0, 4096};

// Operations/s of `peak` on every thread of the pool, for `seconds` at least.
double ops_on_all(Exec& exec, double (*peak)(int64_t), double seconds) {
    std::atomic<double> ops{0.0};
    const auto start = Clock::now();
    exec.pool.parallel_for(exec.pool.num_threads(), [&](int64_t, int64_t, int) {
        double mine = 0.0;
        do {
            mine += peak(kMultiplyRounds);
        } while (seconds_since(start) < seconds);
        double sum = ops.load();
        while (!ops.compare_exchange_weak(sum, sum + mine)) {
        }
    });
    return ops.load() / seconds_since(start);
}

}  // namespace

LimitMeter::LimitMeter(int64_t array_bytes)
    : array_(static_cast<size_t>(array_bytes), uint8_t{1}) {}

void LimitMeter::read_round(Exec& exec, double seconds) {
    const cpu::Kernels& kernels = cpu::kernels_for(exec.isa);
    const auto n = static_cast<int64_t>(array_.size()) / 64;
    for (const int64_t ahead : kReadAhead) {
        std::atomic<uint64_t> sum{0};
        double bytes = 0.0;
        const auto start = Clock::now();
        do {
            exec.pool.parallel_for(n, [&](int64_t begin, int64_t end, int) {
                sum += kernels.read(array_.data() + begin * 64, (end - begin) * 64, ahead);
            });
            bytes += static_cast<double>(n * 64);
        } while (seconds_since(start) < seconds);
        bytes /= seconds_since(start);
        if (sum != 0) limits_.read_bytes = std::max(limits_.read_bytes, bytes);
    }
}

void LimitMeter::multiply_round(Exec& exec, double seconds) {
    const cpu::Kernels& kernels = cpu::kernels_for(exec.isa);
    if (kernels.multiply_peak != nullptr)
        limits_.mul_ops =
            std::max(limits_.mul_ops, ops_on_all(exec, kernels.multiply_peak, seconds));
    const cpu::Int8Kernels& int8 = cpu::int8_kernels_for(exec.isa);
    if (int8.peak != nullptr)
        limits_.int8_ops = std::max(limits_.int8_ops, ops_on_all(exec, int8.peak, seconds));
}

double LimitMeter::side_by_side(Exec& exec, int rounds) const {
    const cpu::Kernels& kernels = cpu::kernels_for(exec.isa);
    if (kernels.multiply_peak == nullptr) return 1.0;
    double alone = 0.0;
    double together = 0.0;
    for (int i = 0; i < rounds; ++i) {
        const auto start = Clock::now();
        const double ops = kernels.multiply_peak(kMultiplyRounds);
        alone = std::max(alone, ops / seconds_since(start));
        together = std::max(together, ops_on_all(exec, kernels.multiply_peak, 0.0));
    }
    return together / (alone * exec.pool.num_threads());
}

}  // namespace dsa::gemm
