// Files that are missing, cut, empty, something else in their place, or links.

#include <sys/stat.h>

#include <algorithm>
#include <stdexcept>

#include "fuzz/mutations.h"

namespace dsa::testing {
namespace {

namespace fs = std::filesystem;

bool is_shard(const std::string& file) {
    return file == kFirstShard || file == kLastShard;
}
bool is_optional(const std::string& file) {
    return file == kGeneration || file == kTokenizer;
}

void add_cuts(Mutations& list, const std::string& file) {
    // A tokenizer that is cut between two pieces is a smaller one; whitespace may end JSON.
    const Expect expect = file == kTokenizer ? Expect::kEither : Expect::kRefused;
    for (const size_t bytes : {0U, 1U, 2U, 7U, 8U, 9U, 64U})
        add_edit(list, file, "cut to " + std::to_string(bytes) + " bytes",
                 [bytes](std::string& s) { s.resize(std::min(s.size(), bytes)); }, expect, {file});
    for (const size_t bytes : {1U, 2U, 8U, 77U})
        add_edit(list, file, std::to_string(bytes) + " bytes cut off",
                 [bytes](std::string& s) { s.resize(s.size() - bytes); },
                 bytes == 1 && !is_shard(file) ? Expect::kEither : expect, {file});
    for (size_t eighths = 1; eighths < 8; ++eighths)
        add_edit(list, file, "cut to " + std::to_string(eighths) + " eighths",
                 [eighths](std::string& s) { s.resize(s.size() * eighths / 8); }, expect, {file});
    if (!is_shard(file)) return;
    for (const int64_t beyond : {-1, 0, 1})
        add_edit(list, file, "cut at the end of the header " + std::to_string(beyond),
                 [beyond](std::string& s) {
                     s.resize(8 + take_apart(s).header.size() + static_cast<size_t>(beyond));
                 },
                 Expect::kRefused, {file});
}

void add_replacements(Mutations& list, const std::string& file) {
    const auto add = [&](const std::string& what, Expect expect,
                         const std::function<void(const fs::path&)>& make,
                         std::vector<std::string> parts) {
        list.push_back({file + ": " + what,
                        [=](const fs::path& folder) {
                            const fs::path path = folder / file;
                            fs::rename(path, folder / "moved");
                            make(path);
                        },
                        expect, std::move(parts)});
    };
    add("missing", is_optional(file) ? Expect::kOpens : Expect::kRefused, [](const fs::path&) {},
        {file == kIndex ? "no weights, expected model.safetensors.index.json" : file});
    add("a folder", Expect::kRefused, [](const fs::path& p) { fs::create_directory(p); }, {file});
    add("a named pipe", Expect::kRefused,
        [](const fs::path& p) {
            if (::mkfifo(p.c_str(), 0600) != 0) throw std::runtime_error("mkfifo");
        },
        {file, "not a regular file"});
    const auto add_link = [&](const std::string& what, Expect expect, const fs::path& target) {
        add("a link to " + what, expect, [=](const fs::path& p) { fs::create_symlink(target, p); },
            {file});
    };
    add_link("nothing", Expect::kRefused, "/no/such/file");
    add_link("itself", Expect::kRefused, file);
    add_link("its content", Expect::kOpens, "moved");
    add_link("the folder", Expect::kRefused, ".");
    add_link("/dev/null", Expect::kRefused, "/dev/null");
    add_link("/dev/zero", Expect::kRefused, "/dev/zero");
    add_link("/proc/self/mem", Expect::kRefused, "/proc/self/mem");
}

}  // namespace

void add_edit(Mutations& list, const std::string& file, const std::string& name,
              const EditText& edit, Expect expect, std::vector<std::string> parts) {
    list.push_back({file + ": " + name,
                    [=](const fs::path& folder) {
                        std::string content = read_whole(folder / file);
                        edit(content);
                        write_whole(folder / file, content);
                    },
                    expect, std::move(parts)});
}

void add_file_mutations(Mutations& list) {
    for (const char* file : {kConfig, kGeneration, kTokenizer, kIndex, kFirstShard, kLastShard}) {
        add_cuts(list, file);
        add_replacements(list, file);
    }
    list.push_back({"an empty folder",
                    [](const fs::path& folder) {
                        for (const auto& entry : fs::directory_iterator(folder))
                            fs::remove(entry.path());
                    },
                    Expect::kRefused,
                    {"config.json"}});
    list.push_back({"the shards swapped",
                    [](const fs::path& folder) {
                        fs::rename(folder / kFirstShard, folder / "moved");
                        fs::rename(folder / kLastShard, folder / kFirstShard);
                        fs::rename(folder / "moved", folder / kLastShard);
                    },
                    Expect::kRefused,
                    {"safetensors: tensor", "is missing, expected there by"}});
}

}  // namespace dsa::testing
