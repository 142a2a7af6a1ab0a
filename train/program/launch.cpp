// `longreach launch --nproc N [--max-restarts R] VERB ...`: the verb on N ranks of this machine.
#include "distributed/launcher.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>

#include "core/exec_words.h"
#include "core/verbose.h"
#include "distributed/environment.h"
#include "distributed/rendezvous.h"
#include "train/program/command_line.h"

namespace longreach {
namespace {

struct RankedVerb {
  const char* name;
  int (*run)(const Arguments&);
};
// Those that run on ranks.
constexpr RankedVerb kRankedVerbs[] = {{"train", train_verb}, {"eval", eval_verb}, {"bench", bench_verb}};

CLI::Validator whole_number(int least, int most) {
  return {[least, most](const std::string& written) {
            int number = 0;
            const char* end = written.data() + written.size();
            const auto read = std::from_chars(written.data(), end, number);
            const bool good = read.ec == std::errc{} && read.ptr == end && number >= least && number <= most;
            return good ? std::string()
                        : text("expected a whole number from ", least, " to ", most, ", found `", written,
                               "`");
          },
          "", ""};
}

const RankedVerb& verb_of(const Arguments& words) {
  std::vector<std::string> names;
  for (const RankedVerb& verb : kRankedVerbs) names.emplace_back(verb.name);
  const std::string known = join(names);
  check(!words.empty(), "launch: a verb is missing; those that run on ranks: ", known);
  check(!words[0].starts_with("-"), "launch: ", words[0], " is no option (see longreach launch --help)");
  const auto found = std::find(names.begin(), names.end(), words[0]);
  check(found != names.end(), "launch: `", words[0], "` does not run on ranks, start it without `launch`",
        did_you_mean(words[0], names), " (on ranks: ", known, ")");
  return kRankedVerbs[found - names.begin()];
}

void expect_no_rank() {
  const char* rank = std::getenv("RANK");
  const Environment environment = read_environment();
  check(environment.world == 1 && (rank == nullptr || *rank == '\0'), "launch: this process is rank ",
        environment.rank, " of ", environment.world,
        " already; what starts ranks (mpirun, srun, torchrun, `launch`) starts the verb itself");
}

}  // namespace

int launch_verb(const Arguments& arguments) {
  LaunchOptions options;
  CLI::App app(
      "runs a verb on several ranks of this machine: longreach launch --nproc N train CONFIG ... What "
      "follows the "
      "verb's name is its own. The first rank to fail is named, and the others are ended",
      "launch");
  app.add_option("-n,--nproc", options.ranks, "ranks to start")->required()->check(whole_number(1, 4096));
  app.add_option(
         "--max-restarts", options.max_restarts,
         "how often all ranks are started again when one has failed; what the user can mend (exit code "
         "2) or has stopped is not")
      ->check(whole_number(0, 1000));
  app.prefix_command();
  if (!parse_arguments(app, arguments)) return 0;

  Arguments words = app.remaining();
  if (!words.empty() && words[0] == "--") words.erase(words.begin());
  const RankedVerb& verb = verb_of(words);
  for (const char* help : {"-h", "--help"})
    if (std::find(words.begin(), words.end(), help) != words.end())
      return verb.run(Arguments(words.begin() + 1, words.end()));
  expect_no_rank();
  const RendezvousServer server;
  options.port = server.port();
  options.command = {this_program()};
  if (verbose()) options.command.emplace_back("-v");
  options.command.insert(options.command.end(), words.begin(), words.end());
  return launch(options);
}

}  // namespace longreach
