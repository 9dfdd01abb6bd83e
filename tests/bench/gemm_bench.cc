// Products against the limits of the machine and against well-known libraries, all measured in one
// run: kernels and limits alternate, and the best of kRounds counts for each.
//
//   gemm_bench [--isa=NAME] [--threads=N] [Google Benchmark's flags]
//
// A row: GFLOP/s, GB/s of weights as stored, and `limit`: the least time that the machine needs for
// the operations or for the weights, whichever is longer, over the time taken. Weights are taken in
// turn from copies that together are far larger than the last-level cache. Rows m_grouped_*,
// subnormals/* and parallel_region: groups_bench.h. Rows batched_*: batched_bench.h.

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string>

#include "base/exec.h"
#include "bench/batched_bench.h"
#include "bench/groups_bench.h"
#include "bench/libraries.h"
#include "bench/measure.h"
#include "bench/product.h"

namespace dsa::bench {
namespace {

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

enum class Library { kNone, kOnednn, kOnednnInt8, kOpenblas };

struct OpName {
    const char* name;
    Library library;
    Form form;               // of our own ones
    int64_t bytes_a_weight;  // as a checkpoint stores it
};
const OpName kOps[] = {{name_of(Form::kFp8), Library::kNone, Form::kFp8, 1},
                       {name_of(Form::kBf16Fp8), Library::kNone, Form::kBf16Fp8, 1},
                       {name_of(Form::kInt8Fp8), Library::kNone, Form::kInt8Fp8, 1},
                       {name_of(Form::kBf16), Library::kNone, Form::kBf16, 2},
                       {"onednn", Library::kOnednn, {}, 2},
                       {"onednn_s8s8", Library::kOnednnInt8, {}, 1},
                       {"openblas_sgemm", Library::kOpenblas, {}, 4}};

std::function<void()> make_call(Machine& machine, const OpName& op, const Shape& s, int64_t m) {
    const auto copies = static_cast<int>(cold_copies(2 * s.n * s.k, m));
    const int threads = machine.pool.num_threads();
    switch (op.library) {
        case Library::kOnednn:
            return onednn_product(machine.exec.isa, m, s.n, s.k, copies).call;
        case Library::kOnednnInt8:
            return onednn_int8_product(m, s.n, s.k, copies).call;
        case Library::kOpenblas:
            return openblas_product(threads, m, s.n, s.k, copies).call;
        default: {
            auto product = std::make_shared<Product>(op.form, s, m);
            return [&machine, product] { (*product)(machine.exec); };
        }
    }
}

void run(benchmark::State& state, Machine& machine, const OpName& op, const Shape& s, int64_t m) {
    const std::function<void()> call = make_call(machine, op, s, m);
    const double flops = 2.0 * static_cast<double>(m * s.n * s.k);
    const auto bytes = static_cast<double>(s.n * s.k * op.bytes_a_weight);
    double best = 0.0;
    for (auto _ : state) {
        best = best_time(machine, call);
        state.SetIterationTime(best);
    }
    const bool int8 = op.library == Library::kOnednnInt8 ||
                      (op.library == Library::kNone && op.form == Form::kInt8Fp8);
    set_counters(state, machine, flops, int8, bytes, best);
}

void register_dense(Machine& machine) {
    for (const int64_t m : kRows)
        for (const Shape& s : kShapes)
            for (const OpName& op : kOps) {
                if (op.library == Library::kOnednnInt8 && machine.exec.isa == Isa::kPortable)
                    continue;
                const std::string name =
                    std::string(op.name) + "/" + s.name + "/m:" + std::to_string(m);
                add_benchmark(name, [&machine, &op, &s, m](benchmark::State& state) {
                    run(state, machine, op, s, m);
                });
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
        machine.meter.read_round(machine.exec, kLeastRound);
        machine.meter.multiply_round(machine.exec, kLeastRound);
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
    register_dense(machine);
    register_batched(machine);
    register_groups(machine);
    register_subnormals(machine);
    register_region(machine);
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
