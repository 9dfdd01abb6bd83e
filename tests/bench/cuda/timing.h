#pragma once
// Times of kernels on the GPU.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/device.h"

namespace dsa::bench {

// Median time of a call's kernels, with all of L2 overwritten before each call ("cold"): the
// kernels' own time as CUPTI reports it, or, where CUPTI is not found, between events (which adds
// the launch).
class ColdTimer {
  public:
    // overwrite: fills memory far larger than L2.
    ColdTimer(device::Stream& stream, std::function<void()> overwrite);
    ~ColdTimer();
    ColdTimer(const ColdTimer&) = delete;
    ColdTimer& operator=(const ColdTimer&) = delete;

    bool has_cupti() const { return cupti_ != nullptr; }
    double median_us(const std::function<void()>& call, int repeats);

  private:
    struct Cupti;
    device::Stream& stream_;
    std::function<void()> overwrite_;
    Cupti* cupti_ = nullptr;
};

// Mean time of a call within one CUDA graph of many (warm L2, no gaps of launches).
double graph_us(device::Stream& stream, const std::function<void()>& call, int calls);

}  // namespace dsa::bench
