#pragma once
// Sums in plain C++ with sixteen partial sums, as a vector kernel has lanes: the compiler may use
// what vectors it has without reordering anything, and errors grow with n / 16. For files without
// ISA flags.

#include <array>
#include <cstddef>
#include <cstdint>

namespace dsa {

inline constexpr int64_t kLanes = 16;
using Lanes = std::array<float, kLanes>;

inline float sum_lanes(Lanes lanes) {
    for (size_t width = kLanes / 2; width > 0; width /= 2)
        for (size_t l = 0; l < width; ++l) lanes[l] += lanes[l + width];
    return lanes[0];
}

// Lane l gets the products of elements l, l + 16, l + 32, ...
inline Lanes dot_lanes(const float* a, const float* b, int64_t n) {
    Lanes lanes{};
    const int64_t rest = n % kLanes;
    const int64_t whole = n - rest;
    for (int64_t i = 0; i < whole; i += kLanes)
        for (int64_t l = 0; l < kLanes; ++l) lanes[static_cast<size_t>(l)] += a[i + l] * b[i + l];
    for (int64_t l = 0; l < rest; ++l) lanes[static_cast<size_t>(l)] += a[whole + l] * b[whole + l];
    return lanes;
}

}  // namespace dsa
