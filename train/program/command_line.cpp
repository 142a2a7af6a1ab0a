#include "train/program/command_line.h"

#include <algorithm>
#include <iostream>
#include <memory>

#include "core/verbose.h"
#include "train/program/terminal.h"

namespace longreach {
namespace {

// Defaults stand behind what an option is, where nothing else is said of them there, and not inside its type.
class HelpFormat : public CLI::Formatter {
 public:
  std::string make_option_opts(const CLI::Option* option) const override {
    std::string written = CLI::Formatter::make_option_opts(option);
    const std::string value = "=" + option->get_default_str();
    if (const size_t at = written.rfind(value); value.size() > 1 && at != std::string::npos)
      written.erase(at, value.size());
    return written;
  }
  std::string make_option_desc(const CLI::Option* option) const override {
    std::string written = CLI::Formatter::make_option_desc(option);
    const std::string& value = option->get_default_str();
    const bool said = written.find("default") != std::string::npos;
    return value.empty() || said ? written : text(written, " (default: ", value, ")");
  }
};

// Takes the values that the options' variables hold now for their defaults; flags, empty lists and what must
// be given have none.
void note_defaults(CLI::App& app) {
  for (CLI::Option* option : app.get_options()) {
    if (option->get_items_expected_max() == 0 || option->get_required()) continue;
    option->capture_default_str();
    std::string value = option->get_default_str();
    if (value.starts_with("[")) value = value.substr(1, value.size() - 2);
    option->default_str(value == "\"\"" ? "" : value);
  }
  app.formatter(std::make_shared<HelpFormat>());
}

}  // namespace

bool parse_arguments(CLI::App& app, Arguments arguments) {
  bool talkative = false;
  const std::string verb = app.get_name();
  app.name("longreach " + verb);
  app.add_flag("-v,--verbose", talkative, "say on standard error what is done and how long it takes");
  note_defaults(app);
  for (CLI::App* subcommand : app.get_subcommands({})) {
    subcommand->fallthrough();
    note_defaults(*subcommand);
  }
  std::reverse(arguments.begin(), arguments.end());  // CLI11 takes a vector from its end
  try {
    app.parse(arguments);
  } catch (const CLI::CallForHelp&) {
    std::cout << wrapped(app.help(), terminal_width());
    return false;
  } catch (const CLI::CallForAllHelp&) {
    std::cout << wrapped(app.help("", CLI::AppFormatMode::All), terminal_width());
    return false;
  } catch (const CLI::ParseError& error) {
    throw UserError(one_line(text(verb, ": ", error.what(), " (see longreach ", verb, " --help)")));
  }
  if (talkative) set_verbose(true);
  return true;
}

}  // namespace longreach
