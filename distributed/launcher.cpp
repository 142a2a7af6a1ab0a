#include "distributed/launcher.h"

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <iostream>
#include <optional>
#include <set>

#include "core/error.h"
#include "distributed/line_relay.h"
#include "distributed/rank_process.h"

namespace longreach {
namespace {

using Clock = std::chrono::steady_clock;
constexpr int kUserError = 2;
constexpr Clock::time_point kNever = Clock::time_point::max();
// Signals that come together are one wish, as for `train`.
constexpr std::chrono::seconds kOneWish{1};

bool asks_to_stop(int signal) {
  return signal == SIGTERM || signal == SIGINT || signal == SIGHUP || signal == SIGUSR1;
}

// How a process ended: its exit code, or 128 + the signal that killed it.
struct Ending {
  int code;
  bool killed;
};

std::string described(int rank, const Ending& ending) {
  if (!ending.killed) return text("rank ", rank, " ended with code ", ending.code);
  const int signal = ending.code - 128;
  return text("rank ", rank, " was killed by signal ", signal, " (", ::strsignal(signal), ")");
}

std::string prefix_of(int rank) { return text("[rank ", rank, "] "); }

struct Rank {
  int number;
  pid_t process;
  std::optional<Ending> ending;
};

// The ranks of one attempt.
class Attempt {
 public:
  Attempt(const LaunchOptions& options, CaughtSignals& signals) : options_(options), signals_(signals) {}
  ~Attempt();
  Attempt(const Attempt&) = delete;
  Attempt& operator=(const Attempt&) = delete;

  void start(int attempt);
  // Until all have ended.
  void watch();
  int code() const { return failure_ ? failure_->code : stopped_; }
  // The run failed by itself, and nobody has stopped it or must mend it.
  bool may_begin_anew() const {
    return failure_ && code() != kUserError && !asks_to_stop(code() - 128) && stopped_ == 0 &&
           forwarded_.empty();
  }

 private:
  void start_one(int rank, int attempt);
  void take(const CaughtSignal& caught);
  void forward(int signal);
  void reap(Rank& rank);
  void note_failure(const Rank& rank);
  std::set<std::string> who_repeats_an_error() const;
  bool all_ask_the_user() const;
  std::string kill_what_stands_still();
  int milliseconds_to_deadline() const;
  void meet_deadlines();
  void signal_all(int signal);
  void kill_all();
  bool any_left() const {
    return std::any_of(ranks_.begin(), ranks_.end(), [](const Rank& rank) { return !rank.ending; });
  }

  const LaunchOptions& options_;
  CaughtSignals& signals_;
  std::vector<Rank> ranks_;
  LineRelay relay_;
  std::vector<int> forwarded_;
  // Of the first SIGTERM or SIGINT.
  std::optional<Clock::time_point> first_wish_;
  Clock::time_point terminate_at_ = kNever, kill_at_ = kNever;
  // Of the first rank that failed, and what is said of it.
  std::optional<Ending> failure_;
  std::string verdict_;
  // The code of the first rank that ended since it was asked to, or 0.
  int stopped_ = 0;
};

Attempt::~Attempt() {
  kill_all();
  for (const Rank& rank : ranks_)
    if (!rank.ending) ::waitpid(rank.process, nullptr, 0);
}

void Attempt::start(int attempt) {
  for (int rank = 0; rank < options_.ranks; ++rank) start_one(rank, attempt);
  relay_.start();
}

void Attempt::start_one(int rank, int attempt) {
  RankStart start;
  start.command = options_.command;
  start.environment = {{"RANK", text(rank)},
                       {"LOCAL_RANK", text(rank)},
                       {"WORLD_SIZE", text(options_.ranks)},
                       {"LOCAL_WORLD_SIZE", text(options_.ranks)},
                       {"MASTER_ADDR", "127.0.0.1"},
                       {"MASTER_PORT", text(options_.port)},
                       {"TORCHELASTIC_USE_AGENT_STORE", "True"},
                       {"TORCHELASTIC_RESTART_COUNT", text(attempt)}};
  if (rank > 0) {
    start.output = relay_.add(prefix_of(rank));
    start.errors = relay_.add(prefix_of(rank), "error: ");
  }
  ranks_.push_back({rank, start_rank(start, signals_), std::nullopt});
  relay_.handed_over();
}

void Attempt::watch() {
  while (any_left()) {
    for (const CaughtSignal& caught : signals_.wait(milliseconds_to_deadline())) take(caught);
    for (Rank& rank : ranks_) reap(rank);  // one SIGCHLD may stand for several
    meet_deadlines();
  }
  for (const CaughtSignal& caught : signals_.wait(0)) take(caught);
  relay_.finish(who_repeats_an_error());
  if (failure_ && !all_ask_the_user()) std::cerr << "error: " << verdict_ << std::endl;
}

// What the user must mend is the same on all ranks that say so: the first of them speaks for the others.
std::set<std::string> Attempt::who_repeats_an_error() const {
  std::set<std::string> silenced;
  bool said = false;
  for (const Rank& rank : ranks_) {
    if (rank.ending->code != kUserError) continue;
    if (said) silenced.insert(prefix_of(rank.number));
    said = true;
  }
  return silenced;
}

// Then it has been said, and which rank came first says nothing.
bool Attempt::all_ask_the_user() const {
  return std::all_of(ranks_.begin(), ranks_.end(),
                     [](const Rank& rank) { return rank.ending->code == kUserError; });
}

void Attempt::take(const CaughtSignal& caught) {
  if (caught.number != SIGCHLD) return forward(caught.number);
  for (Rank& rank : ranks_)
    if (rank.process == caught.sender) reap(rank);
}

void Attempt::forward(int signal) {
  if (signal == SIGTERM || signal == SIGINT) {
    const auto now = Clock::now();
    if (first_wish_ && now - *first_wish_ <= kOneWish) return;
    if (first_wish_) kill_at_ = std::min(kill_at_, now + options_.last_patience);
    if (!first_wish_) first_wish_ = now;
  }
  forwarded_.push_back(signal);
  signal_all(signal);
}

void Attempt::reap(Rank& rank) {
  int status = 0;
  if (rank.ending || ::waitpid(rank.process, &status, WNOHANG) != rank.process) return;
  const bool killed = WIFSIGNALED(status);
  rank.ending = Ending{killed ? 128 + WTERMSIG(status) : WEXITSTATUS(status), killed};
  const int code = rank.ending->code;
  if (code == 0 || failure_) return;
  const bool forwarded = std::count(forwarded_.begin(), forwarded_.end(), code - 128) > 0;
  if (!forwarded && (killed || !asks_to_stop(code - 128))) return note_failure(rank);
  if (stopped_ == 0) stopped_ = code;
}

void Attempt::note_failure(const Rank& rank) {
  failure_ = rank.ending;
  verdict_ = kill_what_stands_still() + described(rank.number, *failure_);
  terminate_at_ = Clock::now() + options_.patience;
}

// A rank that somebody has stopped with SIGSTOP cannot say that others fail because of it.
std::string Attempt::kill_what_stands_still() {
  std::string found;
  for (const Rank& rank : ranks_) {
    siginfo_t state{};
    if (rank.ending ||
        ::waitid(P_PID, static_cast<id_t>(rank.process), &state, WSTOPPED | WNOHANG | WNOWAIT) != 0)
      continue;
    if (state.si_pid != rank.process) continue;
    found += text("rank ", rank.number, " stood still (signal ", state.si_status, "); ");
    ::kill(-rank.process, SIGKILL);
  }
  return found;
}

int Attempt::milliseconds_to_deadline() const {
  const auto next = std::min(terminate_at_, kill_at_);
  if (next == kNever) return -1;
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(next - Clock::now());
  return static_cast<int>(std::max<int64_t>(left.count(), 0));
}

void Attempt::meet_deadlines() {
  const auto now = Clock::now();
  if (now >= terminate_at_) {
    signal_all(SIGTERM);
    terminate_at_ = kNever;
    kill_at_ = std::min(kill_at_, now + options_.last_patience);
  }
  if (now >= kill_at_) {
    kill_all();
    kill_at_ = kNever;
  }
}

void Attempt::signal_all(int signal) {
  for (const Rank& rank : ranks_)
    if (!rank.ending) ::kill(rank.process, signal);
}

// With all that they have started.
void Attempt::kill_all() {
  for (const Rank& rank : ranks_)
    if (!rank.ending) ::kill(-rank.process, SIGKILL);
}

}  // namespace

int launch(const LaunchOptions& options) {
  CaughtSignals signals;
  for (int attempt = 0;; ++attempt) {
    Attempt ranks(options, signals);
    ranks.start(attempt);
    ranks.watch();
    if (attempt == options.max_restarts || !ranks.may_begin_anew()) return ranks.code();
    std::cerr << "restarting (" << attempt + 1 << " of " << options.max_restarts << ")" << std::endl;
  }
}

}  // namespace longreach
