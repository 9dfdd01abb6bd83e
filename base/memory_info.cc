#include "base/memory_info.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <optional>
#include <string>

namespace dsa {
namespace {

constexpr int64_t kUnknown = std::numeric_limits<int64_t>::max();

std::optional<int64_t> read_number(const std::string& path) {
    std::ifstream file(path);
    int64_t value = 0;
    if (file >> value) return value;
    return std::nullopt;  // absent, or "max"
}

// A named "key: N kB" or "key N" line of a proc or cgroup file.
std::optional<int64_t> read_field(const std::string& path, const std::string& key) {
    std::ifstream file(path);
    std::string name;
    for (std::string rest; file >> name; std::getline(file, rest)) {
        int64_t value = 0;
        if (name == key && file >> value) return value;
    }
    return std::nullopt;
}

int64_t system_available() {
    const auto kb = read_field("/proc/meminfo", "MemAvailable:");
    return kb ? *kb * 1024 : kUnknown;
}

// Page cache is given back under pressure, so inactive file pages do not count as used.
int64_t headroom(const std::string& limit, const std::string& usage, const std::string& stat) {
    const auto max = read_number(limit);
    const auto used = read_number(usage);
    if (!max || !used) return kUnknown;
    const auto cache = read_field(stat, "inactive_file");
    return std::max<int64_t>(0, *max - *used + cache.value_or(0));
}

int64_t cgroup_available() {
    int64_t available = kUnknown;
    std::ifstream groups("/proc/self/cgroup");
    for (std::string line; std::getline(groups, line);) {
        const size_t first = line.find(':');
        const size_t second = line.find(':', first + 1);
        if (first == std::string::npos || second == std::string::npos) continue;
        const std::string controllers = line.substr(first + 1, second - first - 1);
        std::string path = line.substr(second + 1);
        const bool v2 = controllers.empty();
        if (!v2 && controllers != "memory") continue;
        const std::string root = v2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory";
        const char* limit = v2 ? "/memory.max" : "/memory.limit_in_bytes";
        const char* usage = v2 ? "/memory.current" : "/memory.usage_in_bytes";
        for (;;) {  // a limit of any ancestor counts
            const std::string dir = root + (path == "/" ? "" : path);
            available =
                std::min(available, headroom(dir + limit, dir + usage, dir + "/memory.stat"));
            if (path.empty() || path == "/") break;
            path.resize(path.find_last_of('/'));
        }
    }
    return available;
}

}  // namespace

int64_t available_memory() {
    return std::min(system_available(), cgroup_available());
}

}  // namespace dsa
