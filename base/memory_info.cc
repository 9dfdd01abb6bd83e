#include "base/memory_info.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <optional>
#include <sstream>
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

int64_t system_available(const std::string& root) {
    const auto kb = read_field(root + "/proc/meminfo", "MemAvailable:");
    return kb ? *kb * 1024 : kUnknown;
}

// One version of cgroups: where its tree is mounted and what its files are called.
struct Hierarchy {
    const char* mount;
    const char* limits[2];
    const char* usage;
    // Of memory.stat, descendants included: what `usage` includes too.
    const char* file_pages[2];
};
constexpr Hierarchy kV2 = {"/sys/fs/cgroup",
                           {"/memory.max", "/memory.high"},
                           "/memory.current",
                           {"inactive_file", "active_file"}};
constexpr Hierarchy kV1 = {"/sys/fs/cgroup/memory",
                           {"/memory.limit_in_bytes", nullptr},
                           "/memory.usage_in_bytes",
                           {"total_inactive_file", "total_active_file"}};

// What one cgroup still allows. Page cache is given back under pressure and does not count as used:
// much of it may be the very weights that are about to be mapped.
int64_t headroom(const Hierarchy& h, const std::string& folder) {
    const auto used = read_number(folder + h.usage);
    if (!used) return kUnknown;
    int64_t cache = 0;
    for (const char* field : h.file_pages)
        cache += read_field(folder + "/memory.stat", field).value_or(0);
    const int64_t taken = std::max<int64_t>(0, *used - cache);
    int64_t left = kUnknown;
    for (const char* limit : h.limits) {
        const auto max = limit ? read_number(folder + limit) : std::nullopt;
        if (max) left = std::min(left, std::max<int64_t>(0, *max - taken));
    }
    return left;
}

bool lists_memory(const std::string& controllers) {
    std::istringstream list(controllers);
    for (std::string name; std::getline(list, name, ',');)
        if (name == "memory") return true;
    return false;
}

// A limit of any ancestor counts. In a container the path may be the host's, of which only the root
// of the mount exists: that is the container's own cgroup.
int64_t cgroup_available(const std::string& root) {
    int64_t available = kUnknown;
    std::ifstream groups(root + "/proc/self/cgroup");
    for (std::string line; std::getline(groups, line);) {  // "ID:CONTROLLERS:PATH"
        const size_t first = line.find(':');
        const size_t second = line.find(':', first + 1);
        if (first == std::string::npos || second == std::string::npos) continue;
        const std::string controllers = line.substr(first + 1, second - first - 1);
        if (!controllers.empty() && !lists_memory(controllers)) continue;
        const Hierarchy& hierarchy = controllers.empty() ? kV2 : kV1;
        std::string path = line.substr(second + 1);
        for (;;) {
            available = std::min(available, headroom(hierarchy, root + hierarchy.mount + path));
            const size_t parent = path.find_last_of('/');
            if (parent == std::string::npos) break;
            path.resize(parent);
        }
    }
    return available;
}

}  // namespace

int64_t available_memory(const std::string& root) {
    return std::min(system_available(root), cgroup_available(root));
}

}  // namespace dsa
