// Every field of config.json and generation_config.json with values that it must not have, or need
// not like.

#include <utility>

#include "fuzz/mutations.h"

namespace dsa::testing {
namespace {

using Json = nlohmann::json;
using Pointer = Json::json_pointer;

void add_value(Mutations& list, const std::string& file, const std::string& pointer,
               const Json& value, Expect expect, std::vector<std::string> parts) {
    add_edit(
        list, file, pointer + " = " + value.dump(),
        [=](std::string& text) {
            Json config = Json::parse(text);
            config[Pointer(pointer)] = value;
            text = config.dump();
        },
        expect, std::move(parts));
}

std::string last_key(const std::string& pointer) {
    return pointer.substr(pointer.rfind('/') + 1);
}

// Wrong wherever a number is expected, and numbers that may or may not be.
void add_number(Mutations& list, const std::string& file, const std::string& pointer) {
    const std::vector<std::string> parts = {file, last_key(pointer) + " is "};
    for (const Json& wrong : {Json("x"), Json(true), Json::object(), Json(-1)})
        add_value(list, file, pointer, wrong, Expect::kRefused, parts);
    for (const Json& value :
         {Json(nullptr), Json(0), Json(1), Json(7), Json(1 << 16), Json(1 << 24), Json(1 << 30),
          Json(INT64_MAX), Json(INT64_MIN), Json(UINT64_MAX), Json(1e-320), Json(1e308),
          Json(-1e308), Json(0.5), Json::array(), Json::array({1, 2})})
        add_value(list, file, pointer, value, Expect::kEither, {});
}

void add_removed(Mutations& list, const std::string& file, const Json& config) {
    for (const auto& [key, value] : config.items())
        add_edit(
            list, file, key + " removed",
            [k = key](std::string& text) {
                Json json = Json::parse(text);
                json.erase(k);
                text = json.dump();
            },
            Expect::kEither);
}

bool is_number_like(const Json& value) {
    return value.is_number();
}

void add_fields(Mutations& list, const std::string& file, const Json& config) {
    add_removed(list, file, config);
    const Json flat = config.flatten();
    for (const auto& [pointer, value] : flat.items()) {
        if (is_number_like(value)) {
            // An element of a list is named by its list.
            if (last_key(pointer).find_first_not_of("0123456789") != std::string::npos &&
                last_key(pointer) != "max_length") {
                add_number(list, file, pointer);
                continue;
            }
            for (const Json& wrong : {Json("x"), Json(-1), Json(UINT64_MAX), Json::object()})
                add_value(list, file, pointer, wrong, Expect::kEither, {file});
        } else if (value.is_boolean()) {
            for (const Json& wrong : {Json("x"), Json(1), Json::array()})
                add_value(list, file, pointer, wrong, Expect::kRefused, {file, last_key(pointer)});
            add_value(list, file, pointer, !value.get<bool>(), Expect::kEither, {});
        } else {
            for (const Json& wrong :
                 {Json("x"), Json(std::string(100000, 'z')), Json("\x1b[2J\x7f"), Json(1),
                  Json(true), Json::object(), Json::array({Json::array(), Json::object()})})
                add_value(list, file, pointer, wrong, Expect::kEither, {file});
        }
    }
}

}  // namespace

void add_config_mutations(Mutations& list) {
    add_fields(list, kConfig, make_config(small_spec()));
    add_fields(list, kGeneration, small_generation_config());
    // Values that must be refused in this way.
    const auto refused = [&](const char* key, const Json& value, std::vector<std::string> parts) {
        add_edit(
            list, kConfig, std::string("must name ") + key + " of " + value.dump(),
            [=](std::string& text) {
                Json config = Json::parse(text);
                config[key] = value;
                text = config.dump();
            },
            Expect::kRefused, std::move(parts));
    };
    refused("num_hidden_layers", 0, {kConfig, "num_hidden_layers is 0, expected"});
    refused("num_hidden_layers", 1, {kFirstShard, "layers.1.", "belongs to layer 1"});
    refused("num_hidden_layers", 3, {"layers.2.", "is missing"});
    refused("num_hidden_layers", 1024, {"layers.2.", "is missing"});
    refused("vocab_size", 1 << 24, {"embed_tokens.weight has shape [301, 80], expected [16777216"});
    refused("n_routed_experts", 1 << 16, {"gate.weight has shape [4, 80], expected [65536, 80]"});
    refused("hidden_size", UINT64_MAX, {"hidden_size is 18446744073709551615"});
    refused("eos_token_id", 301, {"eos_token_id is 301, expected an integer from 0 to 300"});
    refused("eos_token_id", Json::array({1, -1}), {"eos_token_id is [1,-1]"});
    // The memory plan alone can refuse it: no tensor has this size.
    refused("index_topk", 1 << 24, {"needs", "scratch"});
}

}  // namespace dsa::testing
