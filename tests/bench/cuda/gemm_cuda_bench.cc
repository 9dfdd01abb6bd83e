// Block-scaled FP8 products on the GPU against the machine's limits. Every shape is compared with
// double precision before it is timed. gemm_cuda_bench --help says how.

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <random>
#include <sstream>

#include "gemm/cuda/built_kernels.h"
#include "gemm/cuda/launch.h"
#include "gemm/cuda/plan.h"
#include "testing/cuda_case.h"
#include "timing.h"

extern "C" const unsigned char dsa_cuda_reference[];

namespace {

using namespace dsa;
using gemm::cuda::Groups;
using gemm::cuda::KernelConfig;
using testing::CudaShape;

struct Options {
    std::string op = "dense";
    std::vector<std::string> shapes;
    bool suite = false, every = false, built_only = false, f32 = false, explain = false;
    bool clean = false;
    int repeats = 11;
    std::string json;
};

Groups groups_of(const std::string& op) {
    return op == "dense"        ? Groups::kDense
           : op == "contiguous" ? Groups::kContiguous
                                : Groups::kMasked;
}

// Of the jittered row counts: the first with which the suite's have, to 1 %, as many rows in all as
// those of the published figures that it is compared with (6108, 5896, 602 and 117: TFLOPS times
// time).
constexpr uint64_t kSeed = 9;

// rows a group; jitter: 0.7 to 1.3 times as many
std::vector<int> rows_of(int groups, int rows, bool jitter) {
    std::mt19937_64 random(kSeed);
    std::vector<int> result;
    for (int g = 0; g < groups; ++g) {
        const double factor =
            jitter ? 0.7 + 0.6 * static_cast<double>(random() >> 11) * 0x1p-53 : 1.0;
        result.push_back(static_cast<int>(rows * factor));
    }
    return result;
}

CudaShape parse(const Options& o, const std::string& text) {
    std::vector<int> v;
    std::stringstream stream(text);
    for (std::string item; std::getline(stream, item, ',');) {
        size_t used = 0;
        const int value =
            item.empty() || item[0] < '0' || item[0] > '9' ? -1 : std::stoi(item, &used);
        if (value < 0 || used != item.size()) v.assign(9, 0);
        v.push_back(value);
    }
    const bool grouped = o.op != "dense";
    if (v.size() < 3 || v.size() > (grouped ? 5 : 3) || v[0] < 1 || v[1] < 1 || v[2] < 1 ||
        (v.size() > 3 && v[3] < 1))
        throw std::runtime_error("shape '" + text + "': expected M,N,K" +
                                 (grouped ? "[,groups[,jitter]]" : "") + " with positive numbers");
    CudaShape s;
    s.groups = groups_of(o.op);
    s.rows = rows_of(v.size() > 3 ? v[3] : 1, v[0], v.size() > 4 && v[4] != 0);
    s.n = v[1];
    s.k = v[2];
    return s;
}

const char* const kWeights[] = {"2112,7168",  "24576,1536", "32768,512",
                                "7168,16384", "4096,7168",  "7168,2048"};

std::vector<std::string> suite(const std::string& op) {
    std::vector<std::string> shapes;
    if (op == "dense")
        for (const char* m : {"1", "8", "16", "64", "128", "4096"})
            for (const char* w : kWeights) shapes.push_back(std::string(m) + "," + w);
    const char* const experts[] = {"4096,7168", "7168,2048"};
    if (op == "contiguous")
        for (const auto& [groups, rows] : {std::pair{"4", "8192"}, {"8", "4096"}, {"32", "256"}})
            for (const char* w : experts)
                shapes.push_back(std::string(rows) + "," + w + "," + groups);
    if (op == "masked")
        for (const auto& [rows, groups] : {std::pair{"1024", "1"},
                                           {"512", "2"},
                                           {"256", "4"},
                                           {"1024", "6,1"},
                                           {"192", "32,1"},
                                           {"20", "32,1"},
                                           {"20", "6,1"}})
            for (const char* w : experts)
                shapes.push_back(std::string(rows) + "," + w + "," + groups);
    return shapes;
}

// Kernels that can run a shape, whatever the plan says.
std::vector<KernelConfig> candidates(const CudaShape& s, bool f32) {
    std::vector<KernelConfig> all;
    const int most = *std::max_element(s.rows.begin(), s.rows.end());
    for (const auto& built : gemm::cuda::built_kernels()) {
        const KernelConfig& c = built.config;
        if (c.groups != s.groups || c.f32_out != f32 || (c.swapped && c.tile_m < most)) continue;
        if (c.split_k > 1 && (most > 128 || s.k < 128 * c.split_k)) continue;
        all.push_back(c);
    }
    return all;
}

class Bench {
  public:
    explicit Bench(const Options& o)
        : options_(o),
          exec_(make_cuda_exec(stream_.handle())),
          library_(dsa_cuda_reference),
          flush_(int64_t{8} << 30),
          timer_(stream_, [this] { flush(); }) {
        exec_.compile_kernels = !o.built_only;
        const device::Properties p = device::properties();
        std::printf("%s, %d multiprocessors; kernel times by %s, 8 GB %s before each call\n",
                    p.name.c_str(), p.multiprocessors,
                    timer_.has_cupti() ? "CUPTI" : "events (with the launch)",
                    o.clean ? "read" : "written");
        measure_copy();
        std::printf("%-24s %9s %9s %8s %7s %6s %8s\n", "M,N,K[,groups[,jitter]]", "us", "graph us",
                    "TFLOPS", "GB/s", "limit", "error");
    }

    // Throws if a result is wrong.
    void shape(const std::string& text) {
        const CudaShape s = parse(options_, text);
        testing::CudaCase test(stream_, s, options_.f32, 7, testing::Codes::kQuantised);
        if (options_.explain)
            exec_.explain = [](std::string_view line) { std::cerr << line << '\n'; };
        test.poison();
        stream_.synchronize();
        const auto begin = std::chrono::steady_clock::now();
        test.run(exec_);
        stream_.synchronize();
        const std::chrono::duration<double, std::milli> first =
            std::chrono::steady_clock::now() - begin;
        exec_.explain = nullptr;
        if (results_.empty())
            std::printf("first product %.1f ms after the call, its kernel's loading included\n",
                        first.count());
        row(
            text, s, checked(test, text), [&] { test.run(exec_); }, "");
        if (!options_.every) return;
        const int most = *std::max_element(s.rows.begin(), s.rows.end());
        for (const KernelConfig& c : candidates(s, options_.f32)) {
            const bool once = c.tile_m >= most;
            const auto call = [&] { run(exec_, {c, 8, once, true}, test.problem()); };
            test.poison();
            call();
            const std::string kernel = describe(c);
            row(text, s, checked(test, text + " " + kernel), call, kernel);
        }
    }

    const nlohmann::json& results() const { return results_; }

  private:
    static constexpr double kWorstError = 0.002;   // relative, of bf16
    static constexpr double kPeakTflops = 1979.0;  // FP8, dense, by data sheet

    static double checked(testing::CudaCase& test, const std::string& what) {
        const double error = test.check();
        if (!(error <= kWorstError))
            throw std::runtime_error(what + ": relative error " + std::to_string(error) +
                                     ", expected at most " + std::to_string(kWorstError));
        return error;
    }
    void row(const std::string& text, const CudaShape& s, double error,
             const std::function<void()>& call, const std::string& note) {
        const double us = timer_.median_us(call, options_.repeats);
        const double graph = bench::graph_us(stream_, call, 20);
        const double tflops = s.flops() / us * 1e-6, gbs = s.bytes(options_.f32) / us * 1e-3;
        const double limit = std::max(tflops / kPeakTflops, gbs / copy_gbs_);
        std::printf("%-24s %9.2f %9.2f %8.1f %7.0f %6.2f %8.1e  %s\n", text.c_str(), us, graph,
                    tflops, gbs, limit, error, note.c_str());
        std::fflush(stdout);
        if (!note.empty()) return;
        results_.push_back({{"op", options_.op},
                            {"groups", s.rows.size()},
                            {"m", s.total_rows()},
                            {"n", s.n},
                            {"k", s.k},
                            {"clean", options_.clean},
                            {"us", us},
                            {"graph_us", graph},
                            {"tflops", tflops},
                            {"gbs", gbs},
                            {"rel_err", error}});
    }
    void measure_copy() {
        const int64_t half = flush_.size() / 2;
        const double us = timer_.median_us(
            [&] { copy(flush_.as<uint8_t>(), flush_.as<uint8_t>() + half, half); }, 3);
        copy_gbs_ = 2.0 * static_cast<double>(half) / us * 1e-3;
        std::printf("copies memory at %.0f GB/s (read and written)\n", copy_gbs_);
    }
    void copy(void* to, const void* from, int64_t bytes) {
        long long n = bytes / 16;
        void* arguments[] = {&to, &from, &n};
        device::launch(library_.kernel("copy", 0), {1056, 256, 1, 0}, arguments, stream_.handle());
    }
    // Before each call. Written lines are to be written back from L2, read ones are not, as when
    // the weights of a model go by.
    void flush() {
        void* p = flush_.data();
        long long n = flush_.size() / 16;
        void* arguments[] = {&p, &n};
        const char* const kernel = options_.clean ? "read_all" : "overwrite";
        device::launch(library_.kernel(kernel, 0), {1056, 256, 1, 0}, arguments, stream_.handle());
    }

    Options options_;
    device::Stream stream_;
    CudaExec exec_;
    device::Library library_;
    device::Buffer flush_;
    bench::ColdTimer timer_;
    double copy_gbs_ = 0.0;
    nlohmann::json results_ = nlohmann::json::array();
};

int run_benchmark(int argc, char** argv) {
    Options o;
    CLI::App app(
        "Block-scaled FP8 products on a Hopper GPU, checked against double precision before they "
        "are timed");
    app.add_option("--op", o.op)->check(CLI::IsMember({"dense", "contiguous", "masked"}));
    app.add_option("--shapes", o.shapes,
                   "M,N,K[,groups[,jitter]]: M rows a group; jitter 1: 0.7 to 1.3 times as many");
    app.add_flag("--suite", o.suite, "the shapes of DeepSeek-V3.2's layers");
    app.add_flag("--f32", o.f32, "D in fp32");
    app.add_flag("--explain", o.explain, "why a kernel was picked");
    app.add_flag("--built-only", o.built_only, "compile no kernel at run time");
    app.add_flag("--every", o.every, "also every other built kernel that could run a shape");
    app.add_flag("--clean", o.clean,
                 "8 GB are read before each call, not written: L2 has nothing to write back");
    app.add_option("--repeats", o.repeats, "calls, the median counts")->check(CLI::PositiveNumber);
    app.add_option("--json", o.json, "write the results to this file");
    CLI11_PARSE(app, argc, argv);
    if (const std::string why = device::why_unavailable(); !why.empty()) {
        std::cerr << why << '\n';
        return 77;
    }
    if (o.suite) o.shapes = suite(o.op);
    if (o.shapes.empty()) throw std::runtime_error("nothing to do: name --shapes or --suite");
    Bench bench(o);
    for (const std::string& s : o.shapes) bench.shape(s);
    if (!o.json.empty()) {
        std::ofstream file(o.json);
        file << bench.results().dump(2) << '\n';
        if (!file.flush()) throw std::runtime_error("cannot write " + o.json);
    }
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    try {
        return run_benchmark(argc, argv);
    } catch (const std::exception& e) {
        std::fprintf(stderr, "%s\n", e.what());
        return 1;
    }
}
