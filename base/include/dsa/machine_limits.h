#pragma once
// What a machine can do at most, measured with one ISA on some threads at once. Operations are
// multiplications and additions, both counted.

namespace dsa {

struct MachineLimits {
    double read_bytes = 0;  // bytes/s from memory
    double mul_ops = 0;     // operations/s of bf16 or fp32 products; 0: not known for the ISA
    double int8_ops = 0;    // of int8 products; 0: not known
};

}  // namespace dsa
