// What libFuzzer needs beside a target: a corpus to start from, written to a temporary folder, and
// our mutations beside its own.

#include <algorithm>
#include <cstring>
#include <random>

#include "fuzz/fuzz_target.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);
extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv);
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned int seed);

namespace {

std::mt19937_64 generator;

uint64_t next_random() {
    return generator();
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
    using namespace dsa::testing;
    static const TempDir corpus;
    static std::string folder = corpus.path().string();
    static std::vector<char*> arguments(*argv, *argv + *argc);
    const std::vector<std::string> inputs = seeds();
    for (size_t i = 0; i < inputs.size(); ++i)
        write_whole(corpus / ("seed" + std::to_string(i)), inputs[i]);
    // With a file or folder of the caller's, that comes first and is where new inputs go.
    const bool replay = std::any_of(arguments.begin() + 1, arguments.end(), [](const char* a) {
        return a[0] != '-' && std::filesystem::is_regular_file(a);
    });
    if (!replay) arguments.push_back(folder.data());
    arguments.push_back(nullptr);
    *argc = static_cast<int>(arguments.size()) - 1;
    *argv = arguments.data();
    return 0;
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned int seed) {
    using namespace dsa::testing;
    static const std::vector<std::string> words = dictionary();
    static const std::vector<std::string> others = seeds();
    if (seed % 2 == 0) return LLVMFuzzerMutate(data, size, max_size);
    generator.seed(seed);
    const std::string input(reinterpret_cast<const char*>(data), size);
    const std::string result =
        mutate(input, others[next_random() % others.size()], words, max_size, next_random);
    std::memcpy(data, result.data(), result.size());
    return result.size();
}
