// The program: finds the verb, turns errors into one line and an exit code.
//
// Exit codes: 0 done, 1 the work failed, 2 the user can mend it (a key, a file, an option), 128 + N ended by
// signal N.
#include <c10/util/Exception.h>
#include <execinfo.h>

#include <csignal>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <iostream>
#include <map>
#include <new>
#include <sstream>

#include "core/error.h"
#include "core/verbose.h"
#include "train/program/build_info.h"
#include "train/program/last_words.h"
#include "train/program/standard_streams.h"
#include "train/program/terminal.h"
#include "train/program/verbs.h"

namespace longreach {
namespace {

struct Verb {
  std::function<int(const Arguments&)> run;
  std::string help;
};

const std::vector<std::pair<std::string, Verb>>& verbs() {
  static const std::vector<std::pair<std::string, Verb>> list = {
      {"train",
       {train_verb,
        "train CONFIG [--print-config | --dry-run] [--section.key value ...]: pre-train, fine-tune or distil "
        "as the TOML file says"}},
      {"launch",
       {launch_verb,
        "launch --nproc N [--max-restarts R] train ...: the verb on several ranks of this machine"}},
      {"eval", {eval_verb, "eval CHECKPOINT: perplexity of held-out text by position, or under gates"}},
      {"generate", {generate_verb, "generate CHECKPOINT --prompt TEXT: sample, streaming"}},
      {"import", {import_verb, "import SOURCE DIR: a model of another program as a checkpoint"}},
      {"export", {export_verb, "export CHECKPOINT DIR --format hf: a model, or a part, for other programs"}},
      {"data", {data_verb, "data fetch|tokenize|inspect: corpora and token stores"}},
      {"verify", {verify_verb, "verify FILE...: compare operators and modules with reference vectors"}},
      {"bench", {bench_verb, "bench [NAME...]: speed and memory, alternated with a peer"}},
      {"plot", {plot_verb, "plot RUN...: loss and scaling curves, maps of gates, as PNG or SVG"}},
      {"info",
       {info_verb, "info [MECHANISM|cuda]: build, machine, mechanisms and their options, CUDA kernels"}},
  };
  return list;
}

void print_help() {
  std::ostringstream out;
  out << "longreach " << kVersion << ": trains language models with sparse and linear attention\n\n"
      << "usage: longreach VERB ... (longreach VERB --help tells more)\n\n";
  for (const auto& [name, verb] : verbs()) out << "  " << verb.help << "\n";
  out << "\n-v, --verbose with any verb: say on standard error what is done and how long it takes\n"
      << "exit codes: 0 done, 1 the work failed, 2 a key, a file or an option is wrong, 128 + N ended by "
         "signal N\n"
      << "(143 SIGTERM, 130 Ctrl-C, 129 SIGHUP, 138 SIGUSR1: `train` writes a checkpoint first)\n";
  std::cout << wrapped(out.str(), terminal_width());
}

int run(Arguments words) {
  while (!words.empty() && (words[0] == "-v" || words[0] == "--verbose")) {
    set_verbose(true);
    words.erase(words.begin());
  }
  if (words.size() > 1 && words[0] == "help") words = {words[1], "--help"};
  if (words.empty() || words[0] == "--help" || words[0] == "-h" || words[0] == "help") {
    print_help();
    return words.empty() ? 2 : 0;
  }
  if (words[0] == "--version") {
    std::cout << "longreach " << kVersion << "\n";
    return 0;
  }
  std::vector<std::string> names;
  for (const auto& [name, verb] : verbs()) {
    if (name == words[0]) return verb.run(Arguments(words.begin() + 1, words.end()));
    names.push_back(name);
  }
  throw UserError(
      text("`", words[0], "` is no verb", did_you_mean(words[0], names), " (verbs: ", join(names), ")"));
}

// In one write: other ranks may speak on the same terminal at the same time.
int report(const std::string& message, int code) {
  std::cout << std::flush;
  std::cerr << "error: " + one_line(message, 990) + "\n" << std::flush;
  return code;
}

// LibTorch reads this once, at its first large tensor: memory comes in huge pages where the system lends them
// (Linux: transparent_hugepage = madvise), so that long sequences do not spend their time on page faults. The
// user's word counts.
void ask_for_huge_pages() { setenv("THP_MEM_ALLOC_ENABLE", "1", 0); }

// c10d keeps records of the last exchanges in a map that its threads change without a lock.
void keep_no_flight_record() { setenv("TORCH_FR_BUFFER_SIZE", "0", 0); }

// Every error as one line and its exit code.
int run_to_its_code(const Arguments& words) {
  try {
    return run(words);
  } catch (const UserError& error) {
    return report(error.what(), 2);
  } catch (const c10::Error& error) {
    if (verbose()) std::cerr << error.what() << "\n";
    return report(error.what_without_backtrace(), 1);
  } catch (const std::bad_alloc&) {
    return report("out of memory", 1);
  } catch (const std::exception& error) {
    return report(error.what(), 1);
  }
}

}  // namespace
}  // namespace longreach

// Before the initialisers of shared libraries: those of LibTorch take hundreds of megabytes, and may open
// files.
static void before_libraries() {
  longreach::open_standard_streams();
  longreach::end_in_one_line();
}
[[gnu::section(".preinit_array"), gnu::used]] static void (*const kBeforeLibraries)() = before_libraries;

int main(int argc, char** argv) {
  using namespace longreach;
  std::signal(SIGXFSZ, SIG_IGN);  // a write past `ulimit -f` fails, as on a full disk
  ask_for_huge_pages();
  keep_no_flight_record();
  void* frame = nullptr;
  ::backtrace(&frame, 1);  // loads what unwinding needs while there is memory for it
  const int code = run_to_its_code(Arguments(argv + 1, argv + argc));
  return code == 0 && !standard_output_written() ? report("standard output could not be written", 1) : code;
}
