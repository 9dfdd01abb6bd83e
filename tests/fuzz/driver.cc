// Drives a fuzz target where there is no libFuzzer:
//
//   fuzz_NAME [--seconds N] [--seed S] [--corpus DIR] [FILE ...]
//
// Mutates valid inputs and those that ended in a way not seen before, from a seed that it prints.
// With files: runs these and nothing else. The input of the run in progress is a file in the
// current folder, removed at the end: whatever ends the program, it is there.

#include <fcntl.h>
#include <unistd.h>

#include <chrono>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <set>

#include "fuzz/fuzz_target.h"

namespace {

using namespace dsa::testing;

constexpr size_t kMaxInput = size_t{1} << 17;
constexpr size_t kMaxCorpus = 4000;

std::mt19937_64 generator;

uint64_t next_random() {
    return generator();
}

struct Arguments {
    double seconds = 10.0;
    uint64_t seed = 1;
    std::string corpus;
    std::vector<std::string> files;
};

Arguments parse(int argc, char** argv) {
    Arguments a;
    for (int i = 1; i < argc; ++i) {
        const std::string flag = argv[i];
        if (flag.rfind("--", 0) != 0) {
            a.files.push_back(flag);
            continue;
        }
        const char* value = i + 1 < argc ? argv[++i] : nullptr;
        if (value != nullptr && flag == "--seconds") {
            a.seconds = std::strtod(value, nullptr);
        } else if (value != nullptr && flag == "--seed") {
            a.seed = std::strtoull(value, nullptr, 0);
        } else if (value != nullptr && flag == "--corpus") {
            a.corpus = value;
        } else {
            std::fprintf(stderr, "usage: %s [--seconds N] [--seed S] [--corpus DIR] [FILE ...]\n",
                         argv[0]);
            std::exit(2);
        }
    }
    return a;
}

// The file that holds the input of the run in progress.
class Kept {
  public:
    explicit Kept(const std::string& name)
        : path_(std::filesystem::current_path() / name),
          what_("more than 10 s for one input, which is in " + path_.string()),
          fd_(::open(path_.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644)) {
        if (fd_ < 0) throw std::runtime_error("cannot write " + path_.string());
    }
    ~Kept() {
        ::close(fd_);
        std::filesystem::remove(path_);
    }
    Kept(const Kept&) = delete;
    Kept& operator=(const Kept&) = delete;

    void run(const std::string& input) {
        if (::pwrite(fd_, input.data(), input.size(), 0) != static_cast<ssize_t>(input.size()) ||
            ::ftruncate(fd_, static_cast<off_t>(input.size())) != 0)
            throw std::runtime_error("cannot write " + path_.string());
        set_deadline(kInputSeconds, what_.c_str());
        LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(input.data()), input.size());
        set_deadline(0, "");
    }
    const std::filesystem::path& path() const { return path_; }

  private:
    std::filesystem::path path_;
    std::string what_;
    int fd_;
};

struct Corpus {
    std::vector<std::string> inputs = seeds();
    size_t num_seeds = inputs.size();
    std::set<std::string> outcomes;

    // Whether the last run ended in a new way, which makes its input one to go on from.
    bool learn(const std::string& input) {
        if (!outcomes.insert(last_outcome()).second) return false;
        if (inputs.size() < kMaxCorpus) inputs.push_back(input);
        return true;
    }
    // Half the time a valid one.
    const std::string& pick() const {
        return inputs[next_random() % (next_random() % 2 == 0 ? num_seeds : inputs.size())];
    }
};

int fuzz(const std::string& name, const Arguments& a) {
    generator.seed(a.seed);
    Kept kept(name + "-" + std::to_string(a.seed) + "-" + std::to_string(::getpid()) + ".input");
    std::printf("%s: seed %" PRIu64 ", %.0f s, the input in progress is %s\n", name.c_str(), a.seed,
                a.seconds, kept.path().c_str());
    std::fflush(stdout);
    Corpus corpus;
    if (!a.corpus.empty())
        for (const auto& entry : std::filesystem::directory_iterator(a.corpus))
            corpus.inputs.push_back(read_whole(entry.path()));
    for (size_t i = 0; i < corpus.inputs.size(); ++i) {
        kept.run(corpus.inputs[i]);
        if (i >= corpus.num_seeds) continue;
        corpus.outcomes.insert(last_outcome());
    }
    const std::vector<std::string> words = dictionary();
    const auto start = std::chrono::steady_clock::now();
    const auto elapsed = [&] {
        return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    };
    uint64_t runs = 0;
    uint64_t opened = 0;
    for (; elapsed() < a.seconds; ++runs) {
        const std::string input =
            mutate(corpus.pick(), corpus.pick(), words, kMaxInput, next_random);
        kept.run(input);
        opened += last_outcome() == "opened" ? 1 : 0;
        corpus.learn(input);
    }
    std::printf("%s: %" PRIu64 " runs in %.1f s, %" PRIu64 " opened, %zu different ends\n",
                name.c_str(), runs, elapsed(), opened, corpus.outcomes.size());
    return runs > 0 ? 0 : 1;
}

int run(int argc, char** argv) {
    const Arguments a = parse(argc, argv);
    if (a.files.empty()) return fuzz(std::filesystem::path(argv[0]).filename().string(), a);
    for (const std::string& file : a.files) {
        const std::string input = read_whole(file);
        set_deadline(kInputSeconds, file.c_str());
        LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(input.data()), input.size());
        std::printf("%s: %s\n", file.c_str(), last_outcome().c_str());
    }
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    try {
        return run(argc, argv);
    } catch (const std::exception& e) {
        std::fprintf(stderr, "%s\n", e.what());
    }
    return 1;
}
