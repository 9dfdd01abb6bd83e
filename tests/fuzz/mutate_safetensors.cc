// The length in front of a header, its bits, and what it says of a tensor.

#include <cstring>
#include <random>
#include <utility>

#include "fuzz/mutations.h"

namespace dsa::testing {
namespace {

using Json = nlohmann::json;

const std::string kNorm = "model.norm.weight";  // F32 [80], in the last shard
constexpr auto kRefused = Expect::kRefused;

void add_lengths(Mutations& list) {
    for (const uint64_t length :
         {uint64_t{0}, uint64_t{1}, uint64_t{2}, uint64_t{100'000'000}, uint64_t{100'000'001},
          uint64_t{INT32_MAX}, uint64_t{UINT32_MAX}, uint64_t{1} << 32, uint64_t{1} << 53,
          uint64_t{INT64_MAX}, uint64_t{1} << 63, UINT64_MAX - 7, UINT64_MAX})
        add_edit(list, kLastShard, "header length " + std::to_string(length),
                 [=](std::string& s) { set_length(s, length); }, kRefused, {kLastShard, "header"});
    for (const int64_t difference : {-9, -8, -2, 1, 8, 1000})
        add_edit(list, kLastShard, "header length off by " + std::to_string(difference),
                 [=](std::string& s) {
                     set_length(s, get_length(s) + static_cast<uint64_t>(difference));
                 },
                 Expect::kRefused, {kLastShard, "header"});
    for (const int64_t beyond : {-8, -7, 0})
        add_edit(list, kLastShard, "header length of the file and " + std::to_string(beyond),
                 [=](std::string& s) { set_length(s, s.size() + static_cast<uint64_t>(beyond)); },
                 Expect::kRefused, {kLastShard, "header"});
    for (size_t bit = 0; bit < 64; ++bit)
        add_edit(
            list, kLastShard, "header length with bit " + std::to_string(bit) + " flipped",
            [=](std::string& s) { s[bit / 8] ^= static_cast<char>(1 << (bit % 8)); },
            // A few spaces or a few less behind the object do no harm to JSON, but the data moves.
            bit < 3 ? Expect::kEither : kRefused, {kLastShard});
}

void add_random_bits(Mutations& list) {
    std::mt19937_64 random(11);
    for (int i = 0; i < 150; ++i) {
        const uint64_t place = random();
        const uint64_t bit = random() % 8;
        add_edit(
            list, i % 2 == 0 ? kFirstShard : kLastShard,
            "header with a bit flipped, number " + std::to_string(i),
            [=](std::string& s) { s[8 + place % get_length(s)] ^= static_cast<char>(1 << bit); },
            Expect::kEither);
    }
}

void add_header(Mutations& list, const std::string& name, const std::function<void(Json&)>& edit,
                Expect expect, std::vector<std::string> parts = {}) {
    parts.emplace_back(expect == kRefused ? "/" : "");
    add_edit(
        list, kLastShard, name,
        [edit](std::string& s) {
            const Parts p = take_apart(s);
            Json header = Json::parse(p.header);
            edit(header);
            s = with_length(header.dump(), p.data);
        },
        expect, std::move(parts));
}

void add_entry(Mutations& list, const char* key, const Json& value, const std::string& part,
               Expect expect = kRefused) {
    const std::string shown = value.dump();
    add_header(list, kNorm + "." + key + " = " + shown.substr(0, 60),
               [=](Json& h) { h[kNorm][key] = value; }, expect, {part});
}

void add_entries(Mutations& list) {
    const std::string offsets = kNorm + ".data_offsets is ";
    const Json one = Json::array({0});
    for (const Json& value : {Json(nullptr),
                              Json(5),
                              Json("x"),
                              Json::array(),
                              one,
                              Json::array({0, 1, 2}),
                              Json::array({"0", "320"}),
                              Json::array({0.0, 320.0}),
                              Json::array({-320, 0}),
                              Json::array({-1, 319}),
                              Json::array({320, 0}),
                              Json::array({0, INT64_MAX}),
                              Json::array({UINT64_MAX - 319, UINT64_MAX}),
                              Json::array({UINT64_MAX, 0}),
                              Json::array({int64_t{1} << 40, (int64_t{1} << 40) + 320}),
                              Json::array({1e300, 1e300}),
                              Json::array({one, one}),
                              Json::object({{"0", 0}}),
                              Json::array({0, 319}),
                              Json::array({0, 321}),
                              Json::array({1, 1}),
                              Json::array({false, true})})
        add_entry(list, "data_offsets", value, kNorm + ".data_offsets");
    const std::string shape = kNorm + ".shape";
    for (const Json& value :
         {Json(nullptr), Json(80), Json("x"), Json::object(), Json::array({"80"}),
          Json::array({80.0}), Json::array({-80}), Json::array({UINT64_MAX}),
          Json::array({INT64_MIN}), Json::array({nullptr}), Json::array({INT64_MAX, 2}),
          Json::array({INT64_MAX, INT64_MAX, 0}), Json::array({1 << 20, 1 << 22, 1 << 22})})
        add_entry(list, "shape", value, shape);
    for (const Json& value :
         {Json::array(), Json::array({0}), Json::array({79}), Json::array({81}),
          Json::array({INT64_MAX / 4}), Json::array({INT64_MAX}), Json::array({80, 0}),
          Json::array({0, INT64_MAX}), Json::array({40}), Json(std::vector<int>(200000, 1))})
        add_entry(list, "shape", value, kNorm + ".data_offsets");
    for (const Json& value : {Json::array({80, 1}), Json::array({1, 80}), Json::array({40, 2}),
                              Json::array({1, 1, 1, 1, 1, 1, 1, 1, 80})})
        add_entry(list, "shape", value, kNorm + " has shape");
    for (const char* dtype : {"F64", "I64", "U64", "F16", "I16", "U16", "BF16", "I8", "U8",
                              "F8_E4M3", "F8_E5M2", "BOOL", "F8_E8M0"})
        add_entry(list, "dtype", dtype, kNorm + ".data_offsets");
    for (const char* dtype : {"I32", "U32", "F4", "f32", "F32 ", "\x1b[2J"})
        add_entry(list, "dtype", dtype, kNorm + " is ");
    add_entry(list, "dtype", std::string(1000000, 'D'), kNorm + " is DDD");
    for (const Json& value :
         {Json(nullptr), Json(1), Json(""), Json::array({"F32"}), Json::object()})
        add_entry(list, "dtype", value, kNorm + ".dtype");
    add_entry(list, "more", Json::array({1, "x"}), "", Expect::kOpens);
}

void add_tensors(Mutations& list) {
    using namespace std::string_literals;
    for (const Json& value : {Json(nullptr), Json(1), Json("x"), Json::array(), Json(true)})
        add_header(list, kNorm + " = " + value.dump(), [=](Json& h) { h[kNorm] = value; }, kRefused,
                   {kNorm + " is ", "expected an object"});
    for (const char* key : {"dtype", "shape", "data_offsets"})
        add_header(list, kNorm + " without " + key, [=](Json& h) { h[kNorm].erase(key); }, kRefused,
                   {kNorm + "." + key + " is absent"});
    add_header(list, "two tensors in one place", [](Json& h) { h["other"] = h[kNorm]; }, kRefused,
               {kNorm, "other", "overlap"});
    add_header(list, "half of a tensor over another",
               [](Json& h) {
                   const auto begin = h[kNorm]["data_offsets"][0].get<int64_t>();
                   h["other"] = {{"dtype", "U8"},
                                 {"shape", {4}},
                                 {"data_offsets", {begin + 318, begin + 322}}};
               },
               kRefused, {"overlap"});
    add_header(list, "a tensor missing", [](Json& h) { h.erase(kNorm); }, kRefused,
               {kLastShard, kNorm + " is missing"});
    add_header(list, "no tensors", [](Json& h) { h = Json::object(); }, kRefused, {"is missing"});
    add_header(
        list, "metadata of any kind", [](Json& h) { h["__metadata__"] = Json::array({1}); },
        Expect::kOpens);
    const Json stray = {{"dtype", "U8"}, {"shape", {0}}, {"data_offsets", {0, 0}}};
    for (const std::string& name :
         {""s, "a\0b"s, "../../etc/passwd"s, "\x1b[2J\r\n"s, "\u0085"s, std::string(1000000, 'w'),
          "model.layers.."s, "model.layers.x.y"s, "model.layers.1"s, "_scale_inv"s,
          "model.layers.0.x"s})
        add_header(
            list, "a stray tensor named " + name.substr(0, 30), [=](Json& h) { h[name] = stray; },
            Expect::kOpens);
    // Not in the index, so not of the model.
    for (const std::string& number :
         {"2"s, "9223372036854775807"s, "99999999999999999999999"s, std::string(100000, '7')})
        add_header(
            list, "a stray tensor of layer " + number.substr(0, 30),
            [=](Json& h) { h["model.layers." + number + ".x"] = stray; }, Expect::kOpens);
    add_header(list, "names that are long and broken",
               [=](Json& h) { h["\x1b" + std::string(1000000, 'w')] = 1; }, kRefused,
               {kLastShard, "expected an object"});
}

}  // namespace

void add_safetensors_mutations(Mutations& list) {
    add_lengths(list);
    add_random_bits(list);
    add_entries(list);
    add_tensors(list);
}

void add_data_mutations(Mutations& list) {
    struct Fill {
        const char* name;
        std::string pattern;
        bool ok_as_scale;
    };
    const auto bytes_of = [](float x) {
        std::string s(4, '\0');
        std::memcpy(s.data(), &x, 4);
        return s;
    };
    const Fill fills[] = {
        {"NaN", bytes_of(NAN), false},      {"-NaN", std::string(4, '\xff'), false},
        {"inf", bytes_of(INFINITY), false}, {"-inf", bytes_of(-INFINITY), false},
        {"0", bytes_of(0.0F), true},        {"-0", bytes_of(-0.0F), true},
        {"-1", bytes_of(-1.0F), true},      {"1e-45", bytes_of(1e-45F), true},
        {"3e38", bytes_of(3e38F), true},    {"0x7f", std::string(4, '\x7f'), true}};
    struct Target {
        const char* file;
        const char* part;  // of the names
        bool is_scale;
    };
    // Expected to be in the files as written: both have tensors of all these kinds.
    const Target targets[] = {{kLastShard, "norm.weight", false},
                              {kFirstShard, "embed_tokens.weight", false},
                              {kFirstShard, "_scale_inv", true},
                              {kLastShard, "mlp.gate", false},
                              {kLastShard, "lm_head.weight", false},
                              {kFirstShard, "indexer.", false},
                              {kFirstShard, "", false}};
    for (const Target& t : targets)
        for (const Fill& f : fills) {
            const bool any_scale =
                t.is_scale || std::string(t.part).empty() || std::string(t.part) == "indexer.";
            const bool refused = any_scale && !f.ok_as_scale;
            add_edit(
                list, t.file, std::string("data of *") + t.part + "* all " + f.name,
                [t, f](std::string& s) {
                    const Parts p = take_apart(s);
                    const size_t data = 8 + p.header.size();
                    bool found = false;
                    const Json header = Json::parse(p.header);
                    for (const auto& [name, entry] : header.items()) {
                        if (name.find(t.part) == std::string::npos || !entry.contains("shape"))
                            continue;
                        found = true;
                        const auto begin = entry["data_offsets"][0].get<size_t>();
                        const auto end = entry["data_offsets"][1].get<size_t>();
                        for (size_t i = begin; i < end; ++i)
                            s[data + i] = f.pattern[(i - begin) % 4];
                    }
                    if (!found) throw std::runtime_error(std::string("no tensor ") + t.part);
                },
                refused ? kRefused : Expect::kOpens,
                refused ? std::vector<std::string>{t.file, "_scale_inv has ", "expected finite"}
                        : std::vector<std::string>{});
        }
}

}  // namespace dsa::testing
