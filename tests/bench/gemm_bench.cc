// Products against the limits of the machine and against well-known libraries, all measured in one
// run: kernels and limits alternate, and the best of kRounds counts for each.
//
//   gemm_bench [--isa=NAME] [--threads=N] [Google Benchmark's flags]
//
// A row: GFLOP/s, GB/s of weights as stored, and `limit`: the least time that the machine needs for
// the operations or for the weights, whichever is longer, over the time taken. Weights are taken in
// turn from copies that together are far larger than the last-level cache.

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string>

#include "base/exec.h"
#include "bench/libraries.h"
#include "gemm/gemm.h"
#include "gemm/limits.h"
#include "testing/op_fixture.h"

namespace dsa::bench {
namespace {

using gemm::Activations;
using gemm::GemmParams;
using gemm::num_blocks;
using gemm::Weight;

constexpr int kRounds = 12;
constexpr int64_t kColdBytes = int64_t{384} << 20;  // weights of one benchmark, all copies

struct Shape {
    const char* name;
    int64_t n, k;
};
// DeepSeek-V3.2, then the shapes of the preset b1.
const Shape kShapes[] = {
    {"v32.q_a", 1536, 7168},       {"v32.kv_a", 576, 7168},     {"v32.q_b", 24576, 1536},
    {"v32.o", 7168, 16384},        {"v32.index_q", 8192, 1536}, {"v32.index_k", 128, 7168},
    {"v32.up", 2048, 7168},        {"v32.down", 7168, 2048},    {"b1.q_a", 768, 2048},
    {"b1.q_b", 3072, 768},         {"b1.o", 2048, 2048},        {"b1.dense_up", 4096, 2048},
    {"b1.dense_down", 2048, 4096}, {"b1.up", 768, 2048},        {"b1.down", 2048, 768},
    {"b1.head", 32000, 2048},
};
const int64_t kRows[] = {1, 2, 4, 8, 16, 64, 256, 512, 4096};

struct Machine {
    ThreadPool pool;
    Arena scratch;
    Exec exec;
    gemm::LimitMeter meter;

    Machine(Isa isa, int threads)
        : pool(threads), scratch(int64_t{1} << 30), exec{pool, scratch, isa} {}
};

double seconds_of(const std::function<void()>& work) {
    const auto start = std::chrono::steady_clock::now();
    work();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Best time of a call; kernels and limits alternate.
double best_time(Machine& machine, const std::function<void()>& call) {
    call();
    const double once = seconds_of(call);
    const int repeats = std::max(1, static_cast<int>(4e-3 / once));
    double best = once;
    for (int round = 0; round < kRounds; ++round) {
        machine.meter.multiply_round(machine.exec);
        if (round % 4 == 0) machine.meter.read_round(machine.exec);
        best = std::min(best, seconds_of([&] {
                                  for (int i = 0; i < repeats; ++i) call();
                              }) / repeats);
    }
    return best;
}

enum class Op { kFp8, kBf16Fp8, kInt8Fp8, kBf16, kOnednn, kOnednnInt8, kOpenblas };

struct OpName {
    Op op;
    const char* name;
    int64_t bytes_a_weight;  // as our checkpoint stores it
};
const OpName kOps[] = {{Op::kFp8, "fp8_gemm_nt", 1},
                       {Op::kBf16Fp8, "bf16_fp8_gemm_nt", 1},
                       {Op::kInt8Fp8, "int8_fp8_gemm_nt", 1},
                       {Op::kBf16, "bf16_gemm_nt", 2},
                       {Op::kOnednn, "onednn", 2},
                       {Op::kOnednnInt8, "onednn_s8s8", 1},
                       {Op::kOpenblas, "openblas_sgemm", 4}};

// Random operands of one of our products, with enough copies of the weight.
class Product {
  public:
    Product(Op op, const Shape& s, int64_t m) : op_(op), m_(m), n_(s.n) {
        testing::Random random(1);
        const DType dtype = op == Op::kBf16 ? DType::kBF16 : DType::kE4M3;
        const int64_t bytes = s.n * s.k * size_of(dtype);
        const int64_t copies = m >= 256 ? 1 : std::max<int64_t>(1, kColdBytes / bytes);
        data_.resize(static_cast<size_t>(copies * bytes));
        for (size_t i = 0; i < data_.size(); ++i) {
            data_[i] = static_cast<uint8_t>(i * 2654435761U >> 13);
            if (dtype == DType::kBF16 && i % 2 == 1) data_[i] = 0x3f;
            if (dtype == DType::kE4M3 && (data_[i] & 0x7fU) == 0x7f) data_[i] = 0x30;
        }
        scales_.assign(static_cast<size_t>(num_blocks(s.n) * num_blocks(s.k)), 0.01F);
        for (int64_t i = 0; i < copies; ++i)
            weights_.push_back({data_.data() + i * bytes, dtype,
                                dtype == DType::kE4M3 ? scales_.data() : nullptr, s.n, s.k});
        if (op == Op::kFp8 || op == Op::kInt8Fp8) {
            codes_ = random.e4m3s(m * s.k);
            a_scales_ = random.floats(m * num_blocks(s.k));
            a_ = {codes_.data(),
                  op == Op::kFp8 ? DType::kE4M3 : DType::kI8,
                  s.k,
                  a_scales_.data(),
                  num_blocks(s.k),
                  1};
        } else {
            rows_ = random.bf16s(m * s.k);
            a_ = {rows_.data(), DType::kBF16, s.k, nullptr, 0, 0};
        }
        d_.resize(static_cast<size_t>(m * s.n));
    }

    void operator()(Exec& exec) {
        const GemmParams p{
            m_, a_, weights_[next_++ % weights_.size()], {d_.data(), DType::kBF16, n_}};
        if (op_ == Op::kFp8) return fp8_gemm_nt(exec, p);
        if (op_ == Op::kBf16Fp8) return bf16_fp8_gemm_nt(exec, p);
        if (op_ == Op::kInt8Fp8) return int8_fp8_gemm_nt(exec, p);
        bf16_gemm_nt(exec, p);
    }

  private:
    Op op_;
    int64_t m_, n_;
    std::vector<uint8_t> data_;
    std::vector<float> scales_;
    std::vector<Weight> weights_;
    std::vector<bf16> rows_;
    std::vector<e4m3> codes_;
    std::vector<float> a_scales_;
    Activations a_;
    std::vector<bf16> d_;
    size_t next_ = 0;
};

std::function<void()> make_call(Machine& machine, Op op, const Shape& s, int64_t m) {
    const int copies =
        m >= 256 ? 1 : static_cast<int>(std::max<int64_t>(1, kColdBytes / (2 * s.n * s.k)));
    const int threads = machine.pool.num_threads();
    switch (op) {
        case Op::kOnednn:
            return onednn_product(machine.exec.isa, m, s.n, s.k, copies).call;
        case Op::kOnednnInt8:
            return onednn_int8_product(m, s.n, s.k, copies).call;
        case Op::kOpenblas:
            return openblas_product(threads, m, s.n, s.k, copies).call;
        default: {
            auto product = std::make_shared<Product>(op, s, m);
            return [&machine, product] { (*product)(machine.exec); };
        }
    }
}

void run(benchmark::State& state, Machine& machine, const OpName& op, const Shape& s, int64_t m) {
    const std::function<void()> call = make_call(machine, op.op, s, m);
    const double flops = 2.0 * static_cast<double>(m * s.n * s.k);
    const auto bytes = static_cast<double>(s.n * s.k * op.bytes_a_weight);
    double best = 0.0;
    for (auto _ : state) {
        best = best_time(machine, call);
        state.SetIterationTime(best);
    }
    const MachineLimits& limits = machine.meter.limits();
    const double peak =
        op.op == Op::kOnednnInt8 || op.op == Op::kInt8Fp8 ? limits.int8_ops : limits.mul_ops;
    const double least = std::max(bytes / limits.read_bytes, peak > 0.0 ? flops / peak : 0.0);
    state.counters["GFLOP/s"] = flops / best * 1e-9;
    state.counters["GB/s"] = bytes / best * 1e-9;
    state.counters["limit"] = least / best;
}

void register_all(Machine& machine) {
    for (const int64_t m : kRows)
        for (const Shape& s : kShapes)
            for (const OpName& op : kOps) {
                if (op.op == Op::kOnednnInt8 && machine.exec.isa == Isa::kPortable) continue;
                const std::string name =
                    std::string(op.name) + "/" + s.name + "/m:" + std::to_string(m);
                benchmark::RegisterBenchmark(name.c_str(),
                                             [&machine, &op, &s, m](benchmark::State& state) {
                                                 run(state, machine, op, s, m);
                                             })
                    ->UseManualTime()
                    ->Iterations(1)
                    ->Unit(benchmark::kMicrosecond);
            }
}

// Takes --name=value out of argv.
std::string take_flag(int& argc, char** argv, const char* name) {
    const std::string prefix = std::string("--") + name + "=";
    for (int i = 1; i < argc; ++i) {
        if (std::strncmp(argv[i], prefix.c_str(), prefix.size()) != 0) continue;
        std::string value = argv[i] + prefix.size();
        std::copy(argv + i + 1, argv + argc, argv + i);
        --argc;
        return value;
    }
    return "";
}

int bench_main(int argc, char** argv) {
    const Isa isa = resolve_isa(take_flag(argc, argv, "isa"));
    const std::string threads = take_flag(argc, argv, "threads");
    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
    Machine machine(isa, threads.empty() ? static_cast<int>(std::thread::hardware_concurrency())
                                         : std::stoi(threads));
    limit_onednn(isa, machine.pool.num_threads());
    const double side_by_side = machine.meter.side_by_side(machine.exec, kRounds);
    for (int i = 0; i < kRounds; ++i) {
        machine.meter.read_round(machine.exec);
        machine.meter.multiply_round(machine.exec);
    }
    const auto print_limits = [&](const char* when) {
        const MachineLimits& l = machine.meter.limits();
        std::printf("limits %s: read %.1f GB/s, products %.0f GFLOP/s, int8 %.0f GOP/s\n", when,
                    l.read_bytes * 1e-9, l.mul_ops * 1e-9, l.int8_ops * 1e-9);
    };
    std::printf("isa %s, %d threads; OpenBLAS core %s; cores side by side %.3f%s\n", to_string(isa),
                machine.pool.num_threads(), openblas_core().c_str(), side_by_side,
                side_by_side < 0.95 ? " (RUN INVALID: below 0.95)" : "");
    print_limits("before");
    register_all(machine);
    benchmark::RunSpecifiedBenchmarks();
    print_limits("best");
    return 0;
}

}  // namespace
}  // namespace dsa::bench

int main(int argc, char** argv) {
    try {
        return dsa::bench::bench_main(argc, argv);
    } catch (const std::exception& e) {
        std::fprintf(stderr, "gemm_bench: %s\n", e.what());
        return 1;
    }
}
