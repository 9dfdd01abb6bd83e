// Damage that any JSON text can have, and what an index must not say.

#include <utility>

#include "fuzz/mutations.h"

namespace dsa::testing {
namespace {

using Json = nlohmann::json;

std::string repeat(const std::string& part, size_t n) {
    std::string s;
    for (size_t i = 0; i < n; ++i) s += part;
    return s;
}

// A text that is put behind the opening brace of a valid object.
std::string inside(const std::string& object, const std::string& members) {
    std::string s = object;
    return s.insert(s.find('{') + 1, members);
}

struct TextCase {
    const char* name;
    std::function<std::string(const std::string& valid)> make;
    Expect expect;
    const char* part;
};

std::vector<TextCase> text_cases() {
    using namespace std::string_literals;
    constexpr auto kRefused = Expect::kRefused;
    constexpr auto kOpens = Expect::kOpens;
    const auto always = [](const std::string& s) { return [s](const std::string&) { return s; }; };
    const auto member = [](const std::string& m) {
        return [m](const std::string& v) { return inside(v, m + ","); };
    };
    const std::string number = "\"x\": " + std::string(100000, '9');
    return {
        {"null", always("null"), kRefused, "null, expected an object"},
        {"a list", always("[]"), kRefused, "[], expected an object"},
        {"a number", always("7"), kRefused, "7, expected an object"},
        {"a long string", always('"' + std::string(300000, 'y') + '"'), kRefused, "an object"},
        {"spaces", always("   \n\t  "), kRefused, "not valid JSON"},
        {"a brace", always("{"), kRefused, "not valid JSON"},
        {"a closing brace", always("}"), kRefused, "not valid JSON"},
        {"a key alone", always("{\"a\"}"), kRefused, "not valid JSON"},
        {"33 lists", member("\"x\": " + repeat("[", 33) + repeat("]", 33)), kRefused, "deeper"},
        {"100000 lists", always(repeat("[", 100000)), kRefused, "deeper"},
        {"a million lists", member("\"x\": " + repeat("[", 1000000)), kRefused, "deeper"},
        {"100000 objects", always(repeat("{\"a\":", 100000)), kRefused, "deeper"},
        {"a key twice", member("\"x\": 1, \"x\": 1"), kRefused, "duplicate key \"x\""},
        {"a key twice by an escape", member("\"x\": 1, \"\\u0078\": 1"), kRefused, "duplicate"},
        {"a key twice deep down", member("\"x\": [{\"y\": 1, \"y\": 2}]"), kRefused, "duplicate"},
        {"a long key twice",
         member(repeat("\"" + std::string(200000, 'k') + "\": 1,", 2) + "\"\": 1"), kRefused,
         "duplicate"},
        {"a zero byte", member("\"x\0\": 1"s), kRefused, "zero byte"},
        {"bytes that are not UTF-8", member("\"x\": \"\xff\xc0\x80\""), kRefused, "not valid JSON"},
        {"half a surrogate pair", member("\"x\": \"\\ud800\""), kRefused, "not valid JSON"},
        {"a control character", member("\"x\": \"\x1b[2J\""), kRefused, "not valid JSON"},
        {"1e999", member("\"x\": 1e999"), kRefused, "not valid JSON"},
        {"NaN", member("\"x\": NaN"), kRefused, "not valid JSON"},
        {"a comment", member("\"x\": 1 /* y */"), kRefused, "not valid JSON"},
        {"a trailing comma", always("{\"x\": 1,}"), kRefused, "not valid JSON"},
        {"a number of 100000 digits", member(number), kRefused, ""},
        {"an open string of a megabyte", always("{\"" + std::string(1000000, 's')), kRefused,
         "not"},
        {"text behind the end", [](const std::string& v) { return v + "{}"; }, kRefused,
         "not valid"},
        {"three million values", always('[' + repeat("0,", 3000000) + "0]"), kRefused, "2097152"},
        {"a byte order mark", [](const std::string& v) { return "\xef\xbb\xbf" + v; }, kOpens, ""},
        {"spaces around it", [](const std::string& v) { return "  " + v + "\n\n "; }, kOpens, ""},
    };
}

void add_index_mutations(Mutations& list) {
    using namespace std::string_literals;
    const std::string norm = "model.norm.weight";
    const auto add = [&](const std::string& name, const std::function<void(Json&)>& edit,
                         Expect expect, std::vector<std::string> parts) {
        add_edit(
            list, kIndex, name,
            [edit](std::string& text) {
                Json index = Json::parse(text);
                edit(index);
                text = index.dump();
            },
            expect, std::move(parts));
    };
    const Json refused_names = {"/etc/passwd",
                                "../x",
                                "a/b",
                                "a/../b",
                                "..",
                                ".",
                                "",
                                "./x",
                                "x/",
                                "a\0b"s,
                                nullptr,
                                3,
                                Json::array(),
                                Json::object(),
                                true,
                                Json::array({kFirstShard})};
    for (const Json& shard : refused_names)
        add("a shard named " + shard.dump(), [=](Json& j) { j["weight_map"][norm] = shard; },
            Expect::kRefused,
            {kIndex, "weight_map." + norm, "the name of a file in the same folder"});
    for (const size_t n : {256U, 1000000U})
        add("a shard name of " + std::to_string(n) + " characters",
            [=](Json& j) { j["weight_map"][norm] = std::string(n, 'n'); }, Expect::kRefused,
            {kIndex, "weight_map." + norm + " is \"nnn", "the name of a file"});
    const std::pair<const char*, std::string> absent_names[] = {
        {"a name of 255 characters", std::string(255, 'n')},
        {"a name with control characters", "x\x1b[2J\n"},
        {"an absent shard", "absent.safetensors"}};
    for (const auto& [name, shard] : absent_names)
        add(name, [norm, s = shard](Json& j) { j["weight_map"][norm] = s; }, Expect::kRefused,
            {"index.json expects it"});
    for (const char* file : {kConfig, kTokenizer, kIndex, kGeneration})
        add(std::string("a shard that is ") + file, [=](Json& j) { j["weight_map"][norm] = file; },
            Expect::kRefused, {file, "header"});
    add("a tensor in the wrong shard", [=](Json& j) { j["weight_map"][norm] = kFirstShard; },
        Expect::kRefused, {kFirstShard, norm + " is missing"});
    add("a tensor not listed", [=](Json& j) { j["weight_map"].erase(norm); }, Expect::kRefused,
        {norm + " is missing"});
    add("a tensor too many", [](Json& j) { j["weight_map"]["\x1b[1m"] = kFirstShard; },
        Expect::kRefused, {kFirstShard, "\\x1B[1m is missing"});
    add("a key with a zero byte and no file", [](Json& j) { j["weight_map"]["a\0b"s] = 1; },
        Expect::kRefused, {kIndex, "weight_map.a\\x00b is 1"});
    add("no map", [](Json& j) { j.erase("weight_map"); }, Expect::kRefused,
        {"weight_map is absent"});
    for (const Json& map : {Json(nullptr), Json(1), Json("x"), Json::array(), Json::object()})
        add("map " + map.dump(), [=](Json& j) { j["weight_map"] = map; }, Expect::kRefused,
            {kIndex, "weight_map is"});
    add("other members",
        [](Json& j) {
            j["metadata"] = Json::array({1, nullptr}), j["x"] = "y";
        },
        Expect::kOpens, {});
}

}  // namespace

void add_json_mutations(Mutations& list) {
    for (const TextCase& c : text_cases()) {
        for (const char* file : {kConfig, kGeneration, kIndex})
            add_edit(list, file, c.name, [make = c.make](std::string& s) { s = make(s); }, c.expect,
                     {file, c.part});
        add_edit(list, kLastShard, std::string("header of ") + c.name,
                 [make = c.make](std::string& s) {
                     const Parts parts = take_apart(s);
                     s = with_length(make(parts.header), parts.data);
                 },
                 c.expect, {kLastShard, c.part});
    }
    add_index_mutations(list);
}

}  // namespace dsa::testing
