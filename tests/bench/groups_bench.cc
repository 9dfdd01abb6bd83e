#include "bench/groups_bench.h"

#include <benchmark/benchmark.h>

#include <algorithm>
#include <memory>
#include <string>

#include "bench/product.h"
#include "testing/gemm_operands.h"

namespace dsa::bench {
namespace {

constexpr int64_t kGroups = 32;
const Form kForms[] = {Form::kFp8, Form::kBf16Fp8, Form::kInt8Fp8};
const Shape kExperts[] = {
    {"v32.up", 2048, 7168}, {"v32.down", 7168, 2048}, {"b1.up", 768, 2048}, {"b1.down", 2048, 768}};

class GroupedProduct {
  public:
    GroupedProduct(Form form, const Shape& shape)
        : form_(form),
          offsets_(rows_of_groups()),
          a_(form, offsets_.back(), shape.k),
          b_(form, shape, kGroups, -1),
          d_(static_cast<size_t>(offsets_.back() * shape.n)) {
        for (const gemm::Weight& w : b_.views) pointers_.push_back(&w);
        p_.num_groups = kGroups;
        p_.a = a_.view;
        p_.b = pointers_.data();
        p_.d = {d_.data(), DType::kBF16, shape.n};
        p_.offsets = offsets_.data();
    }

    int64_t rows() const { return offsets_.back(); }

    void grouped(Exec& exec) const {
        if (form_ == Form::kFp8) return m_grouped_fp8_gemm_nt_contiguous(exec, p_);
        if (form_ == Form::kInt8Fp8) return m_grouped_int8_fp8_gemm_nt_contiguous(exec, p_);
        m_grouped_bf16_fp8_gemm_nt_contiguous(exec, p_);
    }

    void singles(Exec& exec) const {
        for (size_t g = 0; g < kGroups; ++g) {
            const int64_t first = offsets_[g];
            gemm::GemmParams p{offsets_[g + 1] - first, p_.a, *pointers_[g], p_.d};
            p.a.data = static_cast<const uint8_t*>(p.a.data) + first * p.a.ld * size_of(p.a.dtype);
            if (p.a.scale != nullptr) p.a.scale += first * p.a.scale_stride_m;
            p.d.data = static_cast<bf16*>(p.d.data) + first * p.d.ld;
            testing::run_gemm(exec, p);
        }
    }

  private:
    static std::vector<int32_t> rows_of_groups() {
        testing::Random random(32);
        std::vector<int32_t> offsets{0};
        for (int64_t g = 0; g < kGroups; ++g)
            offsets.push_back(offsets.back() + 5 + static_cast<int32_t>(random.below(36)));
        return offsets;
    }

    Form form_;
    std::vector<int32_t> offsets_;
    Operand a_;
    Weights b_;
    std::vector<const gemm::Weight*> pointers_;
    std::vector<bf16> d_;
    gemm::GroupedContiguousParams p_;
};

void run_groups(benchmark::State& state, Machine& machine, Form form, const Shape& s) {
    const GroupedProduct product(form, s);
    const double ops = 2.0 * static_cast<double>(product.rows() * s.n * s.k);
    const auto bytes = static_cast<double>(kGroups * s.n * s.k);
    std::pair<double, double> best;
    for (auto _ : state) {
        best = best_times(
            machine, [&] { product.grouped(machine.exec); },
            [&] { product.singles(machine.exec); });
        state.SetIterationTime(best.first);
    }
    set_counters(state, machine, ops, form == Form::kInt8Fp8, bytes, best.first);
    state.counters["of_singles"] = best.second / best.first;
}

void run_subnormals(benchmark::State& state, Machine& machine, Form form, const Shape& s,
                    int64_t m) {
    Product some(form, s, m, 100, 1);  // one copy each: arithmetic, not memory
    Product none(form, s, m, 0, 1);
    const auto call_some = [&] { some(machine.exec); };
    const auto call_none = [&] { none(machine.exec); };
    for (auto _ : state) {
        const auto [with, without] = best_times(machine, call_some, call_none);
        // Where a weight lies in the caches counts as well: again with the places exchanged.
        some.swap_codes(none);
        const auto [other_without, other_with] = best_times(machine, call_some, call_none);
        const double best = std::min(with, other_with);
        state.SetIterationTime(best);
        state.counters["cost"] = best / std::min(without, other_without);
    }
}

}  // namespace

void register_groups(Machine& machine) {
    for (const Shape& s : kExperts)
        for (const Form form : kForms)
            add_benchmark(std::string("m_grouped_") + name_of(form) + "_contiguous/" + s.name,
                          [&machine, &s, form](benchmark::State& state) {
                              run_groups(state, machine, form, s);
                          });
}

void register_subnormals(Machine& machine) {
    for (const int64_t m : {1, 16, 512})
        for (const Form form : kForms)
            add_benchmark(
                std::string("subnormals/") + name_of(form) + "/b1.up/m:" + std::to_string(m),
                [&machine, form, m](benchmark::State& state) {
                    run_subnormals(state, machine, form, kExperts[2], m);
                });
}

void register_region(Machine& machine) {
    benchmark::RegisterBenchmark("parallel_region", [&machine](benchmark::State& state) {
        const int64_t threads = machine.pool.num_threads();
        for (auto _ : state) machine.pool.parallel_for(threads, [](int64_t, int64_t, int) {});
    })->Unit(benchmark::kMicrosecond);
}

}  // namespace dsa::bench
