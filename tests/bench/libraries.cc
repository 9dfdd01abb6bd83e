#include "bench/libraries.h"

#include <cblas.h>
#include <omp.h>

#include <cstring>
#include <oneapi/dnnl/dnnl.hpp>

namespace dsa::bench {
namespace {

using dnnl::memory;

dnnl::engine& engine() {
    static dnnl::engine cpu(dnnl::engine::kind::cpu, 0);
    return cpu;
}
dnnl::stream& stream() {
    static dnnl::stream s(engine());
    return s;
}

memory filled(const memory::desc& desc, int value) {
    memory m(desc, engine());
    std::memset(m.get_data_handle(), value, desc.get_size());
    return m;
}

struct Onednn {
    dnnl::matmul product;
    memory a, d;
    std::vector<memory> b;
    size_t next = 0;

    void operator()() {
        product.execute(
            stream(),
            {{DNNL_ARG_SRC, a}, {DNNL_ARG_WEIGHTS, b[next++ % b.size()]}, {DNNL_ARG_DST, d}});
        stream().wait();
    }
};

LibraryProduct make_onednn(int64_t m, int64_t n, int64_t k, int copies, memory::data_type type,
                           memory::data_type out) {
    const memory::desc a({m, k}, type, memory::format_tag::ab);
    const memory::desc any({k, n}, type, memory::format_tag::any);
    const memory::desc d({m, n}, out, memory::format_tag::ab);
    const dnnl::matmul::primitive_desc plan(dnnl::matmul::desc(a, any, d), engine());
    auto product = std::make_shared<Onednn>();
    product->product = dnnl::matmul(plan);
    product->a = filled(a, 1);
    product->d = filled(d, 0);
    for (int i = 0; i < copies; ++i) product->b.push_back(filled(plan.weights_desc(), 1));
    return {[product] { (*product)(); }};
}

}  // namespace

void limit_onednn(Isa isa, int threads) {
    omp_set_num_threads(threads);
    dnnl::set_max_cpu_isa(isa == Isa::kAmx          ? dnnl::cpu_isa::avx512_core_amx
                          : isa == Isa::kAvx512Bf16 ? dnnl::cpu_isa::avx512_core_bf16
                          : isa == Isa::kAvx512     ? dnnl::cpu_isa::avx512_core_vnni
                                                    : dnnl::cpu_isa::avx2);
}

LibraryProduct onednn_product(Isa isa, int64_t m, int64_t n, int64_t k, int copies) {
    const auto type = isa == Isa::kAvx512Bf16 || isa == Isa::kAmx ? memory::data_type::bf16
                                                                  : memory::data_type::f32;
    return make_onednn(m, n, k, copies, type, type);
}

LibraryProduct onednn_int8_product(int64_t m, int64_t n, int64_t k, int copies) {
    return make_onednn(m, n, k, copies, memory::data_type::s8, memory::data_type::s32);
}

LibraryProduct openblas_product(int threads, int64_t m, int64_t n, int64_t k, int copies) {
    openblas_set_num_threads(threads);
    struct Operands {
        std::vector<float> a, d;
        std::vector<std::vector<float>> b;
        size_t next = 0;
    };
    auto o = std::make_shared<Operands>();
    o->a.assign(static_cast<size_t>(m * k), 0.5F);
    o->d.assign(static_cast<size_t>(m * n), 0.0F);
    for (int i = 0; i < copies; ++i) o->b.emplace_back(static_cast<size_t>(n * k), 0.5F);
    return {[o, m, n, k] {
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, static_cast<int>(m),
                    static_cast<int>(n), static_cast<int>(k), 1.0F, o->a.data(),
                    static_cast<int>(k), o->b[o->next++ % o->b.size()].data(), static_cast<int>(k),
                    0.0F, o->d.data(), static_cast<int>(n));
    }};
}

std::string openblas_core() {
    return openblas_get_corename();
}

}  // namespace dsa::bench
