#pragma once
// Checks that a call throws dsa::Error with a code, and that its message names what it should.

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "dsa/error.h"

namespace dsa::testing {

inline void expect_error(const std::function<void()>& call, ErrorCode code,
                         const std::vector<std::string>& parts) {
    try {
        call();
        ADD_FAILURE() << "no error, expected one with " << parts.front();
    } catch (const Error& e) {
        EXPECT_EQ(e.code(), code) << e.what();
        for (const std::string& part : parts)
            EXPECT_NE(std::string(e.what()).find(part), std::string::npos)
                << e.what() << "\nlacks " << part;
    }
}

}  // namespace dsa::testing
