#pragma once
// A fixture with one small random checkpoint for all its tests.

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "testing/checkpoint_builder.h"

namespace dsa::testing {

class SmallCheckpoint : public ::testing::Test {
  protected:
    static void SetUpTestSuite() {
        folder_ = new TempDir();
        write_checkpoint(folder_->path(), CheckpointSpec{});
    }
    static void TearDownTestSuite() {
        delete folder_;
        folder_ = nullptr;
    }
    // n ids of its vocabulary of 301.
    static std::vector<int32_t> ids(size_t n, int32_t first = 5) {
        std::vector<int32_t> v(n);
        for (size_t i = 0; i < n; ++i)
            v[i] = static_cast<int32_t>((static_cast<size_t>(first) + 7 * i * i) % 301);
        return v;
    }

    static inline TempDir* folder_ = nullptr;
};

}  // namespace dsa::testing
