// `dsa synth`: a checkpoint with random weights from a preset.

#include <iostream>
#include <memory>

#include "commands.h"
#include "common.h"
#include "model_preset.h"

namespace dsa::app {

Command add_synth(CLI::App& app) {
    struct Flags {
        std::string preset, folder;
        uint64_t seed = 1;
    };
    auto flags = std::make_shared<Flags>();
    CLI::App* command =
        app.add_subcommand("synth", "Write a checkpoint with random weights, for benchmarks");
    command->add_option("PRESET", flags->preset, "Name (b1) or YAML file of a model preset")
        ->required();
    command->add_option("FOLDER", flags->folder, "New or empty folder")->required();
    command->add_option("--seed", flags->seed, "Seed of the weights (default 1)");
    command->footer("Example:\n  dsa synth b1 /tmp/b1 && dsa info /tmp/b1");
    return {command, [flags] {
                write_synthetic_checkpoint(read_preset(flags->preset), flags->folder, flags->seed);
                std::cout << flags->folder << ": written\n";
                return 0;
            }};
}

}  // namespace dsa::app
