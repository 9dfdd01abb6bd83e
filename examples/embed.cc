// A conversation from C++: the likeliest first tokens, then the reply as it is written.
//   embed MODEL [QUESTION]

#include <algorithm>
#include <exception>
#include <iostream>
#include <numeric>
#include <vector>

#include "dsa/chat.h"
#include "dsa/engine.h"

namespace {

void print_likeliest(const dsa::Engine& engine, std::span<const float> logits) {
    std::vector<int32_t> ids(logits.size());
    std::iota(ids.begin(), ids.end(), 0);
    std::partial_sort(ids.begin(), ids.begin() + 3, ids.end(),
                      [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
    for (int i = 0; i < 3; ++i)
        std::cout << "logit " << logits[ids[i]] << " for '" << engine.tokenizer().piece(ids[i])
                  << "'\n";
}

}  // namespace

int main(int argc, char** argv) try {
    if (argc < 2) {
        std::cerr << "usage: embed MODEL [QUESTION]\n";
        return 2;
    }
    const dsa::Engine engine(argv[1], {.context_length = 2048});
    dsa::Session session = engine.new_session();
    const char* question = argc > 2 ? argv[2] : "Hello, who are you?";
    session.take_turn(dsa::encode_chat(engine.tokenizer(), {{dsa::Role::kUser, question}}));
    print_likeliest(engine, session.logits());
    session.generate({.max_tokens = 64}, [](const dsa::GeneratedToken& token) {
        std::cout << token.text << std::flush;
        return true;  // false stops
    });
    std::cout << "\n";
} catch (const std::exception& error) {
    std::cerr << "embed: " << error.what() << "\n";
    return 1;
}
