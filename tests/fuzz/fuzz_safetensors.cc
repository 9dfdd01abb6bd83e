// The input is the beginning of model.safetensors, length and header; the data of the valid model
// follow behind it. Whatever parses is bound, opened and run.

#include <fstream>

#include "fuzz/fuzz_target.h"

namespace dsa::testing {
namespace {

struct Fixture {
    TempDir dir;
    Files files = small_model(1);
    std::string seed;
    std::string data;

    Fixture() {
        write_files(dir.path(), files);
        const Parts parts = take_apart(files.at("model.safetensors"));
        seed = with_length(parts.header, "");
        data = parts.data;
    }
};

Fixture& fixture() {
    static Fixture f;
    return f;
}

}  // namespace

std::vector<std::string> seeds() {
    std::vector<std::string> list = {fixture().seed};
    for (const char* header :
         {"{}", R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})",
          R"({"__metadata__":{"format":"pt"},"a":{"dtype":"U8","shape":[],"data_offsets":[3,4]}})"})
        list.push_back(with_length(header, ""));
    return list;
}

std::vector<std::string> dictionary() {
    std::vector<std::string> words = {"\"dtype\":",
                                      "\"shape\":",
                                      "\"data_offsets\":",
                                      "\"__metadata__\":",
                                      "\"F32\"",
                                      "\"BF16\"",
                                      "\"F8_E4M3\"",
                                      "\"U8\"",
                                      "_scale_inv",
                                      "model.layers.",
                                      "\\u0000",
                                      "\\ud800",
                                      "[0,0]",
                                      "{",
                                      "}"};
    const auto header = nlohmann::json::parse(take_apart(fixture().seed).header);
    for (const auto& item : header.items()) words.push_back('"' + item.key() + "\":");
    return words;
}

}  // namespace dsa::testing

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace dsa::testing;
    {
        std::ofstream file(fixture().dir / "model.safetensors", std::ios::binary);
        file.write(reinterpret_cast<const char*>(data), static_cast<std::streamsize>(size));
        file.write(fixture().data.data(), static_cast<std::streamsize>(fixture().data.size()));
    }
    judge(fixture().dir.path());
    return 0;
}
