#include "fuzz/fuzz_target.h"

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <cstdlib>

#include "fuzz/allocation_budget.h"

namespace dsa::testing {
namespace {

std::string outcome_text;

[[noreturn]] void broken(const std::string& what) {
    std::fprintf(stderr, "\nbroken rule: %s\n", what.c_str());
    std::abort();
}

// Letters and punctuation up to the first quote; a run of digits is one #.
std::string skeleton(const std::string& message) {
    std::string s;
    for (const char c : message) {
        if (c == '"' || c == '\'' || s.size() == 160) break;
        const bool digit = std::isdigit(static_cast<unsigned char>(c)) != 0;
        if (!digit || s.empty() || s.back() != '#') s += digit ? '#' : c;
    }
    return s;
}

}  // namespace

const std::string& judge(const std::filesystem::path& folder) {
    set_allocation_budget(kInputBudget);
    Outcome outcome;
    try {
        outcome = open_and_use(folder);
    } catch (const std::exception& e) {
        broken("refused allocation: " + std::to_string(refused_allocation()) +
               " bytes; not a dsa::Error: " + e.what());
    }
    if (refused_allocation() != 0)
        broken("allocation of " + std::to_string(refused_allocation()) + " bytes");
    if (const auto wrong = complaint(outcome, folder)) broken(*wrong);
    outcome_text = outcome.opened ? "opened"
                                  : skeleton(outcome.message.substr(
                                        std::min(outcome.message.size(), folder.string().size())));
    return outcome_text;
}

const std::string& last_outcome() {
    return outcome_text;
}

}  // namespace dsa::testing
