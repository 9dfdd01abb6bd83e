#pragma once
// Damage to a model folder, by name: what is done, and how it must end.

#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "fuzz/small_model.h"

namespace dsa::testing {

enum class Expect {
    kRefused,  // an error whose message holds all parts
    kOpens,    // and can be used
    kEither,   // the parts count if it is refused
};

struct Mutation {
    std::string name;
    // Changes the files of a valid model.
    std::function<void(const std::filesystem::path& folder)> apply;
    Expect expect = Expect::kRefused;
    std::vector<std::string> parts{};
};
using Mutations = std::vector<Mutation>;

// The content of one file, from what it is in the valid model.
using EditText = std::function<void(std::string&)>;
void add_edit(Mutations& list, const std::string& file, const std::string& name,
              const EditText& edit, Expect expect, std::vector<std::string> parts = {});

void add_file_mutations(Mutations& list);         // missing, cut, in place of each file
void add_json_mutations(Mutations& list);         // of every file that is JSON, and the index
void add_config_mutations(Mutations& list);       // fields of the two configs
void add_safetensors_mutations(Mutations& list);  // length, header, tensors
void add_data_mutations(Mutations& list);         // values of weights and scales
void add_tokenizer_mutations(Mutations& list);

}  // namespace dsa::testing
