#pragma once
// Operands of our products, and the calls.

#include <cstdint>
#include <vector>

#include "gemm/gemm.h"

namespace dsa::bench {

struct Shape {
    const char* name;
    int64_t n, k;
};

enum class Form { kFp8, kBf16Fp8, kInt8Fp8, kBf16 };
const char* name_of(Form form);  // of the operator

// Rows of A in the type of the form.
struct Operand {
    std::vector<bf16> rows;
    std::vector<e4m3> codes;
    std::vector<float> scales;
    gemm::Activations view;

    Operand(Form form, int64_t m, int64_t k);
};

// Some copies of one weight, so that each call finds another one in memory.
struct Weights {
    std::vector<uint8_t> bytes;
    std::vector<float> scales;
    std::vector<gemm::Weight> views;

    // Codes of every kind but NaN; of e4m3 so many per mille subnormal, unless negative.
    Weights(Form form, const Shape& shape, int64_t copies, int subnormal_per_mille);
};

// Copies of a weight of one benchmark: for few rows 384 MB together, more than most caches hold.
int64_t cold_copies(int64_t bytes, int64_t m);

class Product {
  public:
    Product(Form form, const Shape& shape, int64_t m);  // weights cold where m is small
    Product(Form form, const Shape& shape, int64_t m, int subnormal_per_mille, int64_t copies);
    void operator()(Exec& exec);
    void swap_codes(Product& other);  // of the weights, of one size, which stay where they are

  private:
    int64_t m_, n_;
    Operand a_;
    Weights b_;
    std::vector<bf16> d_;
    size_t next_ = 0;
};

}  // namespace dsa::bench
