#pragma once
// What this machine can do at most, measured: the limits beside which products are reported. A
// limit is the best of several runs on all threads of the pool at once, which should last about as
// long as what they are the limit of: in a burst of less than a millisecond a core may do more than
// it keeps up.

#include <cstdint>
#include <vector>

#include "base/exec.h"
#include "dsa/machine_limits.h"

namespace dsa::gemm {

// Measures in rounds, so that they can alternate with what they are the limit of: each round keeps
// what is best so far. Owns the array that it reads.
class LimitMeter {
  public:
    // array_bytes: far more than the last-level cache.
    explicit LimitMeter(int64_t array_bytes = int64_t{512} << 20);

    // Each of a round's measurements takes at least so many seconds: reading with prefetches and
    // without, of which the faster counts, and whole passes over the array; the ISA's products and
    // those of int8.
    void read_round(Exec& exec, double seconds);
    void multiply_round(Exec& exec, double seconds);
    const MachineLimits& limits() const { return limits_; }

    // Operations/s of all threads at once over the sum of each thread's alone, best of `rounds`: 1
    // where the cores do not disturb each other.
    double side_by_side(Exec& exec, int rounds) const;

  private:
    std::vector<uint8_t> array_;
    MachineLimits limits_;
};

}  // namespace dsa::gemm
