#include "bench/product.h"

#include <algorithm>

#include "testing/gemm_operands.h"

namespace dsa::bench {
namespace {

DType type_of_weight(Form form) {
    return form == Form::kBf16 ? DType::kBF16 : DType::kE4M3;
}

uint8_t mixed(size_t i) {
    return static_cast<uint8_t>(i * 2654435761U >> 13);
}

}  // namespace

const char* name_of(Form form) {
    switch (form) {
        case Form::kFp8:
            return "fp8_gemm_nt";
        case Form::kBf16Fp8:
            return "bf16_fp8_gemm_nt";
        case Form::kInt8Fp8:
            return "int8_fp8_gemm_nt";
        default:
            return "bf16_gemm_nt";
    }
}

Operand::Operand(Form form, int64_t m, int64_t k) {
    testing::Random random(1);
    if (form == Form::kBf16 || form == Form::kBf16Fp8) {
        rows = random.bf16s(m * k);
        view = {rows.data(), DType::kBF16, k, nullptr, 0, 0};
        return;
    }
    const int64_t blocks = gemm::num_blocks(k);
    codes = random.e4m3s(m * k);
    if (form == Form::kInt8Fp8)  // as int8, without -128, which quantised rows do not have
        for (e4m3& code : codes)
            if (code.bits == 0x80) code.bits = 0x81;
    scales = random.floats(m * blocks);
    view = {
        codes.data(), form == Form::kFp8 ? DType::kE4M3 : DType::kI8, k, scales.data(), blocks, 1};
}

Weights::Weights(Form form, const Shape& shape, int64_t copies, int subnormal_per_mille) {
    const DType dtype = type_of_weight(form);
    const int64_t size = shape.n * shape.k * size_of(dtype);
    bytes.resize(static_cast<size_t>(copies * size));
    for (size_t i = 0; i < bytes.size(); ++i) {
        uint8_t& x = bytes[i];
        x = mixed(i);
        if (dtype == DType::kBF16 && i % 2 == 1) x = 0x3f;
        if (dtype == DType::kBF16) continue;
        if ((x & 0x7fU) == 0x7f) x = 0x30;
        if (subnormal_per_mille < 0) continue;
        const bool subnormal = static_cast<int>(i * 40503U % 1000U) < subnormal_per_mille;
        if (subnormal) {
            x = static_cast<uint8_t>((x & 0x80U) | (1 + i % 7));
        } else if ((x & 0x78U) == 0) {
            x |= 0x38U;
        }
    }
    scales.assign(static_cast<size_t>(gemm::num_blocks(shape.n) * gemm::num_blocks(shape.k)),
                  0.01F);
    for (int64_t i = 0; i < copies; ++i)
        views.push_back({bytes.data() + i * size, dtype,
                         dtype == DType::kE4M3 ? scales.data() : nullptr, shape.n, shape.k});
}

int64_t cold_copies(int64_t bytes, int64_t m) {
    constexpr int64_t kColdBytes = int64_t{384} << 20;
    constexpr int64_t kFewCopies = 4;
    return m >= 256 ? kFewCopies : std::max<int64_t>(1, kColdBytes / bytes);
}

Product::Product(Form form, const Shape& shape, int64_t m)
    : Product(form, shape, m, -1,
              cold_copies(shape.n * shape.k * size_of(type_of_weight(form)), m)) {}

Product::Product(Form form, const Shape& shape, int64_t m, int subnormal_per_mille, int64_t copies)
    : m_(m),
      n_(shape.n),
      a_(form, m, shape.k),
      b_(form, shape, copies, subnormal_per_mille),
      d_(static_cast<size_t>(m * shape.n)) {}

void Product::operator()(Exec& exec) {
    const gemm::GemmParams p{
        m_, a_.view, b_.views[next_++ % b_.views.size()], {d_.data(), DType::kBF16, n_}};
    testing::run_gemm(exec, p);
}

void Product::swap_codes(Product& other) {
    std::swap_ranges(b_.bytes.begin(), b_.bytes.end(), other.b_.bytes.begin());
}

}  // namespace dsa::bench
