// CLI11 in the project's way: `--help` prints and leaves, `-v` works everywhere, a wrong option is a UserError of one
// line.
#pragma once
#include <CLI/CLI.hpp>

#include "core/error.h"
#include "core/verbose.h"
#include "train/verbs.h"

namespace longreach {

// Parses `arguments` into the options bound to `app`. Returns false when help was printed and the verb must
// return 0.
inline bool parse_arguments(CLI::App& app, Arguments arguments) {
  bool talkative = false;
  app.add_flag("-v,--verbose", talkative, "say on standard error what is done and how long it takes");
  for (CLI::App* subcommand : app.get_subcommands({})) subcommand->fallthrough();
  std::reverse(arguments.begin(), arguments.end());  // CLI11 takes a vector from its end
  try {
    app.parse(arguments);
  } catch (const CLI::CallForHelp&) {
    std::cout << app.help();
    return false;
  } catch (const CLI::CallForAllHelp&) {
    std::cout << app.help("", CLI::AppFormatMode::All);
    return false;
  } catch (const CLI::ParseError& error) {
    throw UserError(
        one_line(text(app.get_name(), ": ", error.what(), " (see longreach ", app.get_name(), " --help)")));
  }
  if (talkative) set_verbose(true);
  return true;
}

}  // namespace longreach
