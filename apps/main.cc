// The `dsa` program: command line, errors and exit codes.
//
// 0 done, 1 error, 2 wrong usage, 3 `verify` found a bound violated.

#include <iostream>
#include <new>
#include <string>
#include <vector>

#include "commands.h"
#include "common.h"
#include "dsa/dsa.h"

namespace dsa::app {
namespace {

constexpr int kError = 1;
constexpr int kWrongUsage = 2;

int wrong_usage(const std::string& what, const CLI::App* command) {
    std::cerr << "dsa: usage: " << one_line(what) << " (see dsa "
              << (command == nullptr ? "" : command->get_name() + " ") << "--help)\n";
    return kWrongUsage;
}

int run_command(const Command& command) {
    try {
        return command.run();
    } catch (const UsageError& error) {
        return wrong_usage(error.what(), command.app);
    } catch (const std::bad_alloc&) {
        std::cerr << "dsa: error: out of memory\n";
    } catch (const std::exception& error) {
        std::cerr << "dsa: error: " << one_line(error.what()) << "\n";
    }
    return kError;
}

int run(int argc, char** argv) {
    CLI::App app("Runs models with DeepSeek Sparse Attention on this machine.", "dsa");
    app.set_version_flag("--version", std::string("dsa ") + dsa_version());
    app.footer("Example:\n  dsa chat\n\ndsa COMMAND --help says more.");
    const std::vector<Command> commands = {add_chat(app),  add_generate(app), add_info(app),
                                           add_bench(app), add_verify(app),   add_synth(app)};
    const auto chosen = [&]() -> const Command* {
        for (const Command& command : commands) {
            if (command.app->parsed()) return &command;
        }
        return nullptr;
    };
    try {
        app.parse(argc, argv);
    } catch (const CLI::Success& help) {  // --help, --version
        return app.exit(help);
    } catch (const CLI::ParseError& error) {
        return wrong_usage(error.what(), chosen() == nullptr ? nullptr : chosen()->app);
    }
    if (chosen() == nullptr) {
        std::cerr << app.help();
        return kWrongUsage;
    }
    return run_command(*chosen());
}

}  // namespace
}  // namespace dsa::app

int main(int argc, char** argv) {
    try {
        return dsa::app::run(argc, argv);
    } catch (const std::exception& error) {  // no memory for the command line itself
        std::cerr << "dsa: error: " << error.what() << "\n";
    } catch (...) {
        std::cerr << "dsa: error: unknown\n";
    }
    return 1;
}
