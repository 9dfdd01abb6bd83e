// The memory plan against what a process has at its peak, and the time to open: `dsa info
// --measure` on dsa-mini, each time in a process of its own.

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>

namespace dsa {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;  // shadow memory is resident too
#else
constexpr bool kSanitized = false;
#endif

nlohmann::json measured(const std::string& flags) {
    const std::string command =
        DSA_PROGRAM " info " DSA_MODELS "/dsa-mini --measure --json " + flags;
    std::FILE* pipe = ::popen(command.c_str(), "r");
    if (pipe == nullptr) return {};
    std::string text;
    std::array<char, 4096> buffer{};
    for (size_t n = 0; (n = std::fread(buffer.data(), 1, buffer.size(), pipe)) > 0;)
        text.append(buffer.data(), n);
    EXPECT_EQ(::pclose(pipe), 0) << command;
    return nlohmann::json::parse(text).at("measured");
}

TEST(MemoryPlan, HoldsForTheWholeProcess) {
    if (kSanitized) GTEST_SKIP() << "memory and time are the sanitizer's";
    double open = 1e9;
    for (const char* flags : {"--ctx 2048", "--ctx 2048 --precision fp8", "--ctx 16384",
                              "--ctx 2048 --threads 16", "--ctx 2048 --reference"}) {
        const nlohmann::json m = measured(flags);
        std::printf("%s: peak %.1f MB, plan %.1f MB, ratio %.3f; open %.3f s\n", flags,
                    m.at("peak").get<double>() / 1e6, m.at("plan").get<double>() / 1e6,
                    m.at("ratio").get<double>(), m.at("open_seconds").get<double>());
        EXPECT_LE(std::abs(m.at("ratio").get<double>() - 1.0), 0.10) << flags << "\n" << m.dump(1);
        // Each part too, so that one that is too small does not hide behind one that is too large.
        const auto bytes = [&](const char* key) { return m.at(key).get<double>(); };
        EXPECT_NEAR(bytes("weights") / bytes("plan_weights"), 1.0, 0.02) << flags;
        EXPECT_LE(bytes("session"), 1.02 * bytes("plan_session")) << flags;
        if (!m.at("reference").get<bool>()) open = std::min(open, bytes("open_seconds"));
    }
    EXPECT_GT(open, 0.0);
#ifdef NDEBUG
    EXPECT_LT(open, 0.3) << "seconds, the best of all; the files were in the page cache by then";
#endif
}

}  // namespace
}  // namespace dsa
