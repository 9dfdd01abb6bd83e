#pragma once
// What a fuzz target gives its driver beside LLVMFuzzerTestOneInput: valid inputs to start from and
// words to insert. Each target defines seeds() and dictionary().

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "fuzz/small_model.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace dsa::testing {

inline constexpr unsigned kInputSeconds = 10;
inline constexpr int64_t kInputBudget = int64_t{256} << 20;  // of operator new

std::vector<std::string> seeds();
std::vector<std::string> dictionary();

// Opens and uses the model in the folder; ends the program where that breaks a rule. Returns how it
// ended: "opened", or the message without the numbers and names in it, so that a driver can tell
// new ways to fail from old ones.
const std::string& judge(const std::filesystem::path& folder);
const std::string& last_outcome();

// A mutated copy of `input`, of at most max_size bytes. `other` is another one to take parts of.
std::string mutate(const std::string& input, const std::string& other,
                   const std::vector<std::string>& words, size_t max_size, uint64_t (*random)());

}  // namespace dsa::testing
