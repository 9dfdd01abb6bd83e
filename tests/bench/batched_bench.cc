#include "bench/batched_bench.h"

#include <string>
#include <vector>

#include "bench/product.h"

namespace dsa::bench {
namespace {

constexpr int64_t kLora = 512;      // columns of kv_b
constexpr int64_t kHeadRows = 128;  // rows of W_UK and of W_UV of a head

struct Heads {
    const char* name;
    int64_t heads;
};
const Heads kModels[] = {{"v32.kv_b", 128}, {"b1.kv_b", 16}};

class AbsorbedProduct {
  public:
    AbsorbedProduct(bool nn, int64_t heads, int64_t m)
        : nn_(nn),
          // Twice: a call reads one half of the rows of a weight.
          b_(Form::kBf16Fp8, {"", 2 * heads * kHeadRows, kLora},
             cold_copies(heads * kHeadRows * kLora, m), -1),
          a_(Form::kBf16Fp8, m, heads * kLora),
          d_(static_cast<size_t>(m * heads * kLora)) {
        const int64_t n = nn ? kLora : kHeadRows;
        const int64_t k = nn ? kHeadRows : kLora;
        p_ = {heads,
              m,
              n,
              k,
              a_.rows.data(),
              heads * k,
              k,
              {},
              nn ? 0 : kHeadRows,
              2 * kHeadRows,
              d_.data(),
              heads * n,
              n};
    }
    void operator()(Exec& exec) {
        p_.b = b_.views[next_++ % b_.views.size()];
        nn_ ? batched_gemm_nn(exec, p_) : batched_gemm_nt(exec, p_);
    }

  private:
    bool nn_;
    Weights b_;
    Operand a_;
    std::vector<bf16> d_;
    gemm::BatchedGemmParams p_;
    size_t next_ = 0;
};

void run(benchmark::State& state, Machine& machine, bool nn, int64_t heads, int64_t m) {
    AbsorbedProduct product(nn, heads, m);
    const auto bytes = static_cast<double>(heads * kHeadRows * kLora);
    const double ops = 2.0 * static_cast<double>(m) * bytes;
    double best = 0.0;
    for (auto _ : state) {
        best = best_time(machine, [&] { product(machine.exec); });
        state.SetIterationTime(best);
    }
    set_counters(state, machine, ops, false, bytes, best);
}

}  // namespace

void register_batched(Machine& machine) {
    for (const int64_t m : {1, 16, 64, 512})
        for (const Heads& model : kModels)
            for (const bool nn : {true, false}) {
                const std::string name = std::string(nn ? "batched_gemm_nn/" : "batched_gemm_nt/") +
                                         model.name + "/m:" + std::to_string(m);
                add_benchmark(name, [&machine, &model, nn, m](benchmark::State& state) {
                    run(state, machine, nn, model.heads, m);
                });
            }
}

}  // namespace dsa::bench
