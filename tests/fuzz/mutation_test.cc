// Damaged and hostile model folders. Each mutation of a small model ends in an error that names
// what is wrong, or in a model that works; in time, and without large allocations.

#include <gtest/gtest.h>

#include <chrono>
#include <set>

#include "base/memory_info.h"
#include "base/printable.h"
#include "dsa/engine.h"
#include "fuzz/allocation_budget.h"
#include "fuzz/mutations.h"
#include "testing/expect_error.h"

namespace dsa::testing {
namespace {

constexpr double kMaxSeconds = 10.0;
// Beyond a text of some megabytes in the parser's form.
constexpr int64_t kBudget = int64_t{640} << 20;

class Damaged : public ::testing::Test {
  protected:
    void run(const Mutation& m) {
        SCOPED_TRACE(m.name);
        for (const auto& entry : std::filesystem::directory_iterator(dir_.path()))
            std::filesystem::remove_all(entry.path());
        write_files(dir_.path(), valid_);
        m.apply(dir_.path());
        set_deadline(60, m.name.c_str());
        set_allocation_budget(kBudget);
        const auto start = std::chrono::steady_clock::now();
        Outcome outcome;
        EXPECT_NO_THROW(outcome = open_and_use(dir_.path()));
        const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
        set_deadline(0, "");
        EXPECT_LT(time.count(), kMaxSeconds);
        EXPECT_EQ(refused_allocation(), 0);
        EXPECT_EQ(complaint(outcome, dir_.path()).value_or(""), "");
        if (m.expect != Expect::kEither) {
            EXPECT_EQ(outcome.opened, m.expect == Expect::kOpens) << outcome.message;
        }
        for (const std::string& part : outcome.opened ? std::vector<std::string>() : m.parts) {
            EXPECT_NE(outcome.message.find(part), std::string::npos)
                << outcome.message << " lacks " << part;
        }
        (outcome.opened ? opened_ : refused_) += 1;
        slowest_ = std::max(slowest_, time.count());
    }

    void run_all(void (*add)(Mutations&), size_t at_least) {
        Mutations list;
        add(list);
        std::set<std::string> names;
        for (const Mutation& m : list) {
            EXPECT_TRUE(names.insert(m.name).second) << "two mutations are named " << m.name;
            run(m);
        }
        EXPECT_GE(list.size(), at_least);
        std::printf("%zu mutations: %d refused, %d opened, slowest %.2f s\n", list.size(), refused_,
                    opened_, slowest_);
    }

    TempDir dir_;
    Files valid_ = small_model();
    int opened_ = 0;
    int refused_ = 0;
    double slowest_ = 0.0;
};

TEST_F(Damaged, TheModelItselfWorks) {
    run({"nothing", [](const std::filesystem::path&) {}, Expect::kOpens});
    EXPECT_EQ(opened_, 1);
}
TEST_F(Damaged, Files) {
    run_all(add_file_mutations, 150);
}
TEST_F(Damaged, Json) {
    run_all(add_json_mutations, 150);
}
TEST_F(Damaged, Config) {
    run_all(add_config_mutations, 600);
}
TEST_F(Damaged, Safetensors) {
    run_all(add_safetensors_mutations, 300);
}
TEST_F(Damaged, Data) {
    run_all(add_data_mutations, 70);
}
TEST_F(Damaged, Tokenizer) {
    run_all(add_tokenizer_mutations, 400);
}

// A model whose header promises other sizes, all of BF16, on a file of holes.
struct Promised {
    std::vector<RawTensor> tensors;  // without bytes
    nlohmann::json config;
};

Promised promise(int64_t vocab_size, int64_t hidden_size) {
    CheckpointSpec spec = small_spec();
    spec.bf16_linears = ".";
    Promised p{make_tensors(spec), {}};
    for (RawTensor& t : p.tensors) {
        for (int64_t& n : t.shape)
            n = n == spec.vocab_size ? vocab_size : n == spec.hidden_size ? hidden_size : n;
        t.bytes.clear();
    }
    spec.vocab_size = vocab_size;
    spec.hidden_size = hidden_size;
    p.config = make_config(spec);
    return p;
}

// False where the file system has no files of this size.
bool write_promise(const std::filesystem::path& folder, const Promised& p, bool aligned) {
    nlohmann::json header;
    int64_t end = 0;
    for (const RawTensor& t : p.tensors) {
        const int64_t begin = end;
        int64_t bytes = t.dtype == "F32" ? 4 : 2;
        for (const int64_t n : t.shape) bytes *= n;
        end += bytes;
        header[t.name] = {{"dtype", t.dtype}, {"shape", t.shape}, {"data_offsets", {begin, end}}};
    }
    std::string text = header.dump();
    while (text.size() % 8 != (aligned ? 0 : 1)) text += ' ';
    write_json(folder / kConfig, p.config);
    const auto path = folder / "model.safetensors";
    write_whole(path, with_length(text, ""));
    std::error_code failed;
    std::filesystem::resize_file(path, static_cast<uintmax_t>(end) + 8 + text.size(), failed);
    return !failed;
}

TEST(Promised, MoreThanThereIsIsRefusedBeforeItIsTaken) {
    const Promised p = promise(int64_t{1} << 24, int64_t{1} << 13);
    const TempDir dir;
    if (available_memory() > int64_t{500} << 30) GTEST_SKIP() << "too much memory";
    if (!write_promise(dir.path(), p, true)) GTEST_SKIP() << "no file of 600 GB";
    set_allocation_budget(int64_t{64} << 20);
    expect_error([&] { Engine(dir.path(), {.threads = 1}); }, ErrorCode::kOutOfMemory,
                 {"needs", "weights"});
    ASSERT_TRUE(write_promise(dir.path(), p, false));
    expect_error([&] { inspect_model(dir.path()); }, ErrorCode::kOutOfMemory,
                 {dir.path().string(), "bytes for copies"});
    EXPECT_EQ(refused_allocation(), 0);
}

TEST(Promised, APlanBeyondInt64IsRefused) {
    ModelInfo info;
    ModelConfig& c = info.config;
    c.vocab_size = c.hidden_size = c.q_lora_rank = c.index_topk = 1 << 24;
    c.intermediate_size = c.moe_intermediate_size = 1 << 24;
    c.num_hidden_layers = 1024;
    c.num_attention_heads = c.index_n_heads = 1 << 16;
    c.kv_lora_rank = 512;
    c.qk_nope_head_dim = c.v_head_dim = c.index_head_dim = 128;
    c.qk_rope_head_dim = 64;
    c.n_routed_experts = c.num_experts_per_tok = 1 << 16;
    c.n_shared_experts = 1024;
    c.max_position_embeddings = 1 << 30;
    EngineOptions options;
    options.threads = 1024;
    options.context_length = options.prefill_chunk = 1 << 30;
    const auto refused = [&] {
        expect_error([&] { plan_memory(info, options); }, ErrorCode::kOutOfMemory,
                     {"needs", "num_experts_per_tok 65536", "moe_intermediate_size 16777216"});
    };
    refused();
    options.reference = true;
    refused();
    options.prefill_chunk = 512;
    refused();
    options.reference = false;
    EXPECT_GT(plan_memory(info, options).total(), int64_t{1} << 50);
    // The largest without experts.
    c.n_routed_experts = c.num_experts_per_tok = c.moe_intermediate_size = c.n_shared_experts = 0;
    options.prefill_chunk = 1 << 30;
    EXPECT_GT(plan_memory(info, options).total(), int64_t{1} << 57);
}

TEST(Messages, AreShortAndFitForATerminal) {
    EXPECT_EQ(printable("abc \u00e9\u65e5"), "abc \u00e9\u65e5");
    EXPECT_EQ(printable("\x1b[2J\n\x7f\xc2\x9b\xff\xe6\x97"),
              R"(\x1B[2J\x0A\x7F\xC2\x9B\xFF\xE6\x97)");
    EXPECT_EQ(printable("0123456789abcdef", 11), "0123 ... ef");
    for (size_t limit = 0; limit < 40; ++limit) {
        const std::string shown = printable(std::string(40, '\xc3'), limit);
        EXPECT_LE(shown.size(), 4 * std::max<size_t>(limit, 5));
    }
    const std::string shown =
        Error(ErrorCode::kInvalidModel, "begin " + std::string(1 << 20, '\n') + " end").what();
    EXPECT_LT(shown.size(), 8001U);
    EXPECT_TRUE(shown.starts_with(R"(begin \x0A)") && shown.ends_with(R"(\x0A end)"));
    EXPECT_NE(shown.find(" ... "), std::string::npos);
}

}  // namespace
}  // namespace dsa::testing
