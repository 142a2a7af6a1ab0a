#include "train/fault.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <iterator>
#include <optional>
#include <string_view>
#include <thread>

#include "core/error.h"
#include "train/signals.h"

namespace longreach {
namespace {

struct Name {
  const char* name;
  FaultKind kind;
};
constexpr Name kNames[] = {{"kill", FaultKind::kKill},         {"stop", FaultKind::kStop},
                           {"exit", FaultKind::kExit},         {"term", FaultKind::kTerm},
                           {"nan", FaultKind::kNan},           {"slow", FaultKind::kSlow},
                           {"disk_full", FaultKind::kDiskFull}};

constexpr int kExitCode = 3;
// Metrics of a short run are smaller, a checkpoint is larger.
constexpr rlim_t kFullAt = 65536;

std::vector<std::string> pieces(const std::string& written, char separator) {
  std::vector<std::string> found;
  for (size_t begin = 0, end = 0; end != std::string::npos; begin = end + 1) {
    end = written.find(separator, begin);
    found.push_back(written.substr(begin, end - begin));
  }
  return found;
}

// "NAME=NUMBER"
std::optional<int64_t> number_of(const std::string& piece, const std::string& name, int64_t least) {
  if (!piece.starts_with(name + "=")) return std::nullopt;
  const char *begin = piece.data() + name.size() + 1, *end = piece.data() + piece.size();
  int64_t number = 0;
  const auto [stop, error] = std::from_chars(begin, end, number);
  if (error != std::errc{} || stop != end || number < least) return std::nullopt;
  return number;
}

std::optional<Fault> parsed(const std::string& written) {
  const std::vector<std::string> parts = pieces(written, ':');
  const Name* named =
      std::find_if(std::begin(kNames), std::end(kNames), [&](const Name& n) { return parts[0] == n.name; });
  if (named == std::end(kNames)) return std::nullopt;
  const bool slow = named->kind == FaultKind::kSlow,
             in_save = named->kind == FaultKind::kKill && parts.size() == 4;
  if (parts.size() != (slow || in_save ? 4 : 3)) return std::nullopt;
  const auto rank = number_of(parts[1], "rank", 0), step = number_of(parts[2], "step", 1),
             milliseconds = slow ? number_of(parts[3], "ms", 1) : 0,
             write = in_save ? number_of(parts[3], "write", 1) : 0;
  if (!rank || !step || !milliseconds || !write) return std::nullopt;
  return Fault{named->kind, *rank, *step, *milliseconds, *write};
}

std::string kinds() {
  std::vector<std::string> names;
  for (const Name& named : kNames) names.emplace_back(named.name);
  return join(names);
}

// The signal is another thread's to take (signals.h): this one goes on when it has been.
void ask_to_stop() {
  ::kill(::getpid(), SIGTERM);
  while (!stop_requested()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

void fill_disk() {
  rlimit limit{};
  ::getrlimit(RLIMIT_FSIZE, &limit);
  limit.rlim_cur = std::min(kFullAt, limit.rlim_max);
  ::setrlimit(RLIMIT_FSIZE, &limit);
}

void strike_now(const Fault& fault) {
  switch (fault.kind) {
    case FaultKind::kKill:
      ::kill(::getpid(), SIGKILL);
      break;
    case FaultKind::kStop:
      ::kill(::getpid(), SIGSTOP);
      break;
    case FaultKind::kExit:
      std::_Exit(kExitCode);
    case FaultKind::kTerm:
      ask_to_stop();
      break;
    case FaultKind::kSlow:
      std::this_thread::sleep_for(std::chrono::milliseconds(fault.milliseconds));
      break;
    case FaultKind::kDiskFull:
      fill_disk();
      break;
    case FaultKind::kNan:  // the step's
      break;
  }
}

}  // namespace

void FaultConfig::fields(FieldVisitor& visit) {
  visit.field("inject", inject,
              {.help = "KIND:rank=R:step=S, several with commas between. Before that step that rank: kill, "
                       "stop, term: sends itself SIGKILL, SIGSTOP, SIGTERM; exit: ends with code 3; nan: has "
                       "a loss of NaN; disk_full: writes no file beyond 64 KiB; slow (and :ms=M): sleeps in "
                       "that step and all later ones. kill and :write=K: not before the step, but at the "
                       "K-th point of the save after it (each file, flush, rename and removal). None of it "
                       "when `launch --max-restarts` starts again"});
}

std::vector<Fault> parse_faults(const std::string& written) {
  std::vector<Fault> faults;
  if (written.empty()) return faults;
  for (const std::string& piece : pieces(written, ',')) {
    const auto fault = parsed(piece);
    check<ConfigError>(fault.has_value(), "fault.inject: `", one_line(piece, 80),
                       "`, expected KIND:rank=R:step=S with a KIND of ", kinds(),
                       ", R from 0, S from 1; of slow, :ms=M behind it; of kill, :write=K may be");
    faults.push_back(*fault);
  }
  return faults;
}

void expect_ranks_of(const FaultConfig& config, int world) {
  for (const Fault& fault : parse_faults(config.inject))
    check<ConfigError>(fault.rank < world, "fault.inject: rank=", fault.rank, " of ", world,
                       world == 1 ? " rank" : " ranks", ", expected less than ", world);
}

Faults::Faults(const FaultConfig& config, const Environment& environment) {
  if (environment.restart > 0) return;
  for (const Fault& fault : parse_faults(config.inject))
    if (fault.rank == environment.rank) (fault.write > 0 ? in_saves_ : left_).push_back(fault);
}

bool Faults::strike(int64_t step) {
  bool nan = false;
  for (const Fault& fault : left_) {
    const bool slow = fault.kind == FaultKind::kSlow;
    if (step < fault.step || (step > fault.step && !slow)) continue;
    nan = nan || fault.kind == FaultKind::kNan;
    strike_now(fault);
  }
  left_.erase(std::remove_if(
                  left_.begin(), left_.end(),
                  [&](const Fault& fault) { return fault.kind != FaultKind::kSlow && fault.step == step; }),
              left_.end());
  return nan;
}

WritePoint Faults::write_point(int64_t step) const {
  const auto found = std::find_if(in_saves_.begin(), in_saves_.end(),
                                  [&](const Fault& fault) { return fault.step == step; });
  if (found == in_saves_.end()) return nullptr;
  return [fault = *found, points = int64_t{0}]() mutable {
    if (++points == fault.write) strike_now(fault);
  };
}

}  // namespace longreach
