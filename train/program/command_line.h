// CLI11 in the project's way: `--help` prints and leaves, `-v` works everywhere, a wrong option is a
// UserError of one line.
#pragma once
#include <CLI/CLI.hpp>

#include "core/error.h"
#include "train/program/verbs.h"

namespace longreach {

// Parses `arguments` into the options bound to `app`. Returns false when help was printed and the verb must
// return 0. Help is as wide as the terminal, and names the program and every default.
bool parse_arguments(CLI::App& app, Arguments arguments);

}  // namespace longreach
