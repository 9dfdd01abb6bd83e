// The first byte of the input says which file of a valid model the rest replaces: config.json,
// generation_config.json, tokenizer.model or the index.

#include <array>
#include <utility>

#include "fuzz/fuzz_target.h"

namespace dsa::testing {
namespace {

constexpr std::array kTargets = {kConfig, kGeneration, kTokenizer, kIndex};

struct Fixture {
    TempDir dir;
    Files files = small_model(2);
    size_t damaged = 0;

    Fixture() { write_files(dir.path(), files); }

    void replace(size_t target, const std::string& content) {
        const char* last = kTargets[damaged];
        if (damaged != target) write_whole(dir / last, files.at(last));
        damaged = target;
        write_whole(dir / kTargets[target], content);
    }
};

Fixture& fixture() {
    static Fixture f;
    return f;
}

}  // namespace

std::vector<std::string> seeds() {
    std::vector<std::string> list;
    for (size_t i = 0; i < kTargets.size(); ++i) {
        const std::string& content = fixture().files.at(kTargets[i]);
        // A tokenizer twice: most of the work is there.
        for (size_t n = i == 2 ? 2 : 1; n > 0; --n)
            list.push_back(std::string(1, static_cast<char>(i)) + content);
    }
    return list;
}

std::vector<std::string> dictionary() {
    using namespace std::string_literals;
    std::vector<std::string> words = {"\x0a\x05\x0a\x01q\x18\x01"s,
                                      "\x18\x02"s,
                                      "\x18\x03"s,
                                      "\x18\x04"s,
                                      "\x18\x05"s,
                                      "\x18\x06"s,
                                      "\x15\x00\x00\xc0\x7f"s,
                                      "\x12\x05\x18\x01\x98\x02\x01"s,
                                      "\x12\x02\x18\x03"s,
                                      "\x12\x02\x18\x04"s,
                                      "\x1a\x02\x18\x00"s,
                                      "\x1a\x02\x20\x01"s,
                                      "\x22\x08\x0a\x06\x0a\x01"s,
                                      "\x2a\x02\x12\x00"s,
                                      "<0x41>",
                                      "\xe2\x96\x81",
                                      "\xff\xff\xff\xff\x0f"s};
    for (const char* file : {kConfig, kGeneration}) {
        const auto json = nlohmann::json::parse(fixture().files.at(file));
        for (const auto& item : json.items()) words.push_back('"' + item.key() + "\":");
    }
    for (const char* word : {"\"rope_parameters\":", "\"rope_type\":", "\"yarn\"", "\"default\"",
                             "\"indexer_types\":", "\"qk_head_dim\":", "\"GlmMoeDsaForCausalLM\"",
                             "\"weight_map\":", kFirstShard, kLastShard})
        words.emplace_back(word);
    return words;
}

}  // namespace dsa::testing

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace dsa::testing;
    if (size == 0) return 0;
    fixture().replace(data[0] % kTargets.size(),
                      {reinterpret_cast<const char*>(data) + 1, size - 1});
    judge(fixture().dir.path());
    return 0;
}
