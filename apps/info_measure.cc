#include "info_measure.h"

#include <algorithm>
#include <chrono>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "common.h"
#include "dsa/error.h"

namespace dsa::app {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

// A "key: N kB" line of /proc/self/status, in bytes.
int64_t status_bytes(const std::string& key) {
    std::ifstream file("/proc/self/status");
    for (std::string line; std::getline(file, line);) {
        if (line.rfind(key + ":", 0) == 0) return std::stoll(line.substr(key.size() + 1)) * 1024;
    }
    throw_error(ErrorCode::kUnsupported, "/proc/self/status has no ", key,
                ": memory can't be measured on this system");
}

// Resident pages of mapped files that lie in `folder` (or where its links lead).
int64_t resident_of_files(const std::filesystem::path& folder) {
    std::vector<std::string> files;
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
        std::error_code ignored;  // a link to nowhere is mapped by nobody
        files.push_back(std::filesystem::canonical(entry.path(), ignored).string());
    }
    std::ifstream maps("/proc/self/smaps");
    int64_t bytes = 0;
    bool counted = false;  // the mapping whose lines follow
    for (std::string line; std::getline(maps, line);) {
        if (line.rfind("Rss:", 0) == 0) {
            if (counted) bytes += std::stoll(line.substr(4)) * 1024;
        } else if (line.find('-') < line.find(' ')) {  // "BEGIN-END MODE OFFSET DEVICE INODE PATH"
            const size_t path = line.find('/');
            counted = path != std::string::npos &&
                      std::find(files.begin(), files.end(), line.substr(path)) != files.end();
        }
    }
    return bytes;
}

}  // namespace

Measurement measure(const std::filesystem::path& model, const EngineOptions& options) {
    Measurement m;
    const auto resident = [] { return status_bytes("VmRSS"); };
    const auto start = Clock::now();
    const Engine engine(model, options);
    m.open_seconds = seconds_since(start);
    m.options = engine.options();
    m.plan = engine.plan();

    const auto load = Clock::now();
    engine.load_weights();
    m.load_seconds = seconds_since(load);
    const int64_t opened = resident();
    m.weights = resident_of_files(model);
    m.opened = opened - m.weights;

    const std::vector<int32_t> ids =
        random_tokens(engine.options().context_length, engine.info().config.vocab_size);
    const auto prompt = Clock::now();
    Session session = engine.new_session();
    session.prefill(ids);
    m.prompt_seconds = seconds_since(prompt);
    m.peak = status_bytes("VmHWM");
    m.session = m.peak - opened;
    return m;
}

}  // namespace dsa::app
