#pragma once
// The same tokens through sessions of the public API in different ways: logits must not differ in a
// single bit (docs/numerics.md).

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "base/isa.h"
#include "dsa/engine.h"

namespace dsa::testing {

// What may be compared: bits are promised within one of these.
struct BitsModel {
    std::filesystem::path folder;
    Isa isa;
    Precision precision;
};

// How the tokens are taken in. None of this may show in the logits.
struct BitsWay {
    int64_t chunk = 0;  // tokens a call of the model; 0: all at once
    int threads = 2;
    bool decode = false;       // by Session::decode, one a call, without a trace
    bool interleaved = false;  // in turn with another session, of other tokens and a third as many

    std::string name() const;
};

// Logits of every token, [ids.size(), vocab_size]. Checks on the way (EXPECT) that the session's
// own logits are the last row, and that the other session's are its own too.
std::vector<float> logits_of(const BitsModel& model, const BitsWay& way,
                             std::span<const int32_t> ids);

// EXPECTs that all bits are equal; says which row is the first that differs.
void expect_same_bits(std::span<const float> logits, std::span<const float> expected, int64_t rows,
                      const std::string& what);

// EXPECTs the same bits from the whole product of chunk sizes (1, 7, 64, 512, all), threads, a
// session alone or in turn with another one, prefill and decode.
void expect_whole_product(const BitsModel& model, std::span<const int32_t> ids,
                          std::span<const int> thread_counts);

// Each of the ISAs in every precision, as parameters of a test.
std::vector<BitsModel> bits_models(const std::filesystem::path& folder, std::span<const Isa> isas);
std::string bits_model_name(const BitsModel& model);

}  // namespace dsa::testing
