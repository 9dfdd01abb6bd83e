#pragma once
// The subcommands. Each add_... puts its flags on a subcommand of `app`; `run` does the work once
// the command line is parsed and returns the exit code. Errors are thrown: UsageError for wrong
// usage, dsa::Error for the rest.

#include <CLI/CLI.hpp>
#include <functional>

namespace dsa::app {

struct Command {
    CLI::App* app = nullptr;
    std::function<int()> run;
};

Command add_bench(CLI::App& app);
Command add_chat(CLI::App& app);
Command add_generate(CLI::App& app);
Command add_info(CLI::App& app);
Command add_synth(CLI::App& app);
Command add_verify(CLI::App& app);

}  // namespace dsa::app
