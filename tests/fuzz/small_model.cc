#include "fuzz/small_model.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstring>
#include <fstream>
#include <iterator>
#include <numeric>
#include <vector>

#include "base/printable.h"
#include "dsa/engine.h"
#include "testing/tokenizer_files.h"

namespace dsa::testing {
namespace {

constexpr size_t kMaxMessage = 8200;  // four times what an Error keeps, all of it escaped
constexpr int64_t kMaxContext = 24;
constexpr int64_t kMemoryLimit = int64_t{256} << 20;

const char* deadline_of = "";

void too_slow(int) {
    const char* parts[] = {"\ntoo slow: ", deadline_of, "\n"};
    for (const char* part : parts)
        if (::write(STDERR_FILENO, part, std::strlen(part)) < 0) break;
    std::abort();
}

void use_tokenizer(const Tokenizer& tokenizer, Session& session) {
    const std::string text = "ab  abc, <think> \u65e5\u2581 \xff" + kUser;
    std::vector<int32_t> ids = tokenizer.encode(text);
    for (const int32_t id : ids)
        if (tokenizer.is_special(id)) throw std::logic_error("text became a special token");
    ids.resize(std::min(ids.size(), static_cast<size_t>(session.context_length())));
    session.rewind(0);
    session.prefill(ids);
    std::vector<int32_t> all(static_cast<size_t>(tokenizer.vocab_size()));
    std::iota(all.begin(), all.end(), 0);
    tokenizer.decode(all);
}

void use(const std::filesystem::path& folder) {
    const ModelInfo info = inspect_model(folder);
    EngineOptions options;
    options.threads = 1;
    options.context_length = std::min(kMaxContext, info.config.max_position_embeddings);
    options.prefill_chunk = 4;
    options.memory_limit = kMemoryLimit;
    const Engine engine(folder, options);
    Session session = engine.new_session();
    const auto vocab = static_cast<int32_t>(info.config.vocab_size);
    std::vector<int32_t> ids;
    for (int32_t i = 0; i < std::min<int64_t>(6, options.context_length); ++i)
        ids.push_back(i * 37 % vocab);
    session.prefill(ids);
    const auto logits = session.logits();
    // Weights that are not finite make logits that nothing can be drawn from.
    if (std::any_of(logits.begin(), logits.end(), [](float x) { return std::isfinite(x); })) {
        GenerateOptions generate;
        generate.max_tokens = 1;
        generate.sampling = {.temperature = 0.7};
        session.generate(generate);
    }
    if (engine.has_tokenizer()) use_tokenizer(engine.tokenizer(), session);
}

}  // namespace

CheckpointSpec small_spec() {
    CheckpointSpec s;
    s.vocab_size = 301;
    s.hidden_size = 80;
    s.num_hidden_layers = 2;
    s.num_attention_heads = 1;
    s.q_lora_rank = 48;
    s.index_n_heads = 2;
    s.index_topk = 5;
    s.intermediate_size = 144;
    s.moe_intermediate_size = 40;
    s.n_routed_experts = 4;
    s.n_group = 2;
    s.topk_group = 1;
    s.max_position_embeddings = 256;
    s.rope_original_max_position_embeddings = 64;
    s.norms_f32 = true;
    s.k_norm_bf16 = true;
    return s;
}

nlohmann::json small_generation_config() {
    return {{"bos_token_id", 1}, {"eos_token_id", {2, 3}},
            {"do_sample", true}, {"temperature", 0.6},
            {"top_p", 0.95},     {"top_k", 20},
            {"max_length", 256}, {"repetition_penalty", 1.05}};
}

std::string small_tokenizer() {
    std::string model = piece_field("<unk>", kUnknown) + piece_field("<s>", kControl) +
                        piece_field("</s>", kControl) + piece_field("<think>", kUserDefined) +
                        piece_field(kUser, kUserDefined);
    for (int byte = 0; byte < 256; ++byte) {
        char text[8];
        std::snprintf(text, sizeof(text), "<0x%02X>", byte);
        model += piece_field(text, 6);
    }
    uint32_t score = 0xbf800000;  // -1, then less
    for (const char* text : {"\u2581a", "ab", "\u2581ab", "bc", "abc", "\u2581", "a", "b", "c", "d",
                             "\u65e5", ",", "\u2581\u2581", ", ", "e", "f", "g", "h", "i"})
        model += piece_field(text, kNormal, score += 0x10000);
    return model + trainer(kBpe, true) + normalizer(true);
}

Files small_model(int shards) {
    const TempDir dir;
    CheckpointSpec spec = small_spec();
    spec.shards = shards;
    write_checkpoint(dir.path(), spec);
    write_json(dir / kGeneration, small_generation_config());
    write_whole(dir / kTokenizer, small_tokenizer());
    Files files;
    for (const auto& entry : std::filesystem::directory_iterator(dir.path()))
        files[entry.path().filename().string()] = read_whole(entry.path());
    return files;
}

std::string read_whole(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw std::runtime_error("cannot read " + path.string());
    return {std::istreambuf_iterator<char>(file), {}};
}

void write_whole(const std::filesystem::path& path, const std::string& content) {
    std::ofstream file(path, std::ios::binary);
    file.write(content.data(), static_cast<std::streamsize>(content.size()));
    if (!file.flush()) throw std::runtime_error("cannot write " + path.string());
}

void write_files(const std::filesystem::path& folder, const Files& files) {
    for (const auto& [name, content] : files) {
        std::filesystem::remove_all(folder / name);
        write_whole(folder / name, content);
    }
}

void set_length(std::string& file, uint64_t length) {
    for (size_t i = 0; i < 8; ++i) file[i] = static_cast<char>(length >> (8 * i));
}

uint64_t get_length(const std::string& file) {
    uint64_t length = 0;
    for (size_t i = 0; i < 8; ++i)
        length |= static_cast<uint64_t>(static_cast<uint8_t>(file[i])) << (8 * i);
    return length;
}

std::string with_length(const std::string& header, const std::string& data) {
    std::string file(8, '\0');
    set_length(file, header.size());
    return file + header + data;
}

Parts take_apart(const std::string& file) {
    const auto length = static_cast<size_t>(get_length(file));
    return {file.substr(8, length), file.substr(8 + length)};
}

Outcome open_and_use(const std::filesystem::path& folder) {
    Outcome outcome;
    try {
        use(folder);
        outcome.opened = true;
    } catch (const Error& e) {
        outcome.code = e.code();
        outcome.message = e.what();
    }
    return outcome;
}

std::optional<std::string> complaint(const Outcome& outcome, const std::filesystem::path& folder) {
    if (outcome.opened) return std::nullopt;
    const std::string& m = outcome.message;
    if (outcome.code == ErrorCode::kInternal || outcome.code == ErrorCode::kInvalidArgument)
        return std::string(to_string(outcome.code)) + ": " + m;
    const bool is_plan = outcome.code == ErrorCode::kOutOfMemory;
    if (m.find(is_plan ? "needs" : folder.string()) == std::string::npos)
        return "names no file: " + m;
    if (m.size() > kMaxMessage) return "message of " + std::to_string(m.size()) + " bytes";
    if (printable(m, kMaxMessage) != m) return "not fit for a terminal: " + m;
    return std::nullopt;
}

void set_deadline(unsigned seconds, const char* what) {
    deadline_of = what;
    std::signal(SIGALRM, too_slow);
    ::alarm(seconds);
}

}  // namespace dsa::testing
