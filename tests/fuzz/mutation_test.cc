// Damaged and hostile model folders. Each mutation of a small model ends in an error that names
// what is wrong, or in a model that works; in time, and without large allocations.

#include <gtest/gtest.h>

#include <chrono>
#include <set>

#include "base/memory_info.h"
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

}  // namespace
}  // namespace dsa::testing
