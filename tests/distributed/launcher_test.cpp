// Shell scripts as ranks: what they see, how they end, and what the launcher makes of it. Scripts wait for
// files, not for times.
#include "distributed/launcher.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <map>
#include <set>
#include <sstream>
#include <thread>

#include "core/error.h"
#include "core/temporary_folder.h"
#include "tests/support/errors.h"
#include "tests/support/program.h"

namespace longreach {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;

struct Outcome {
  int code;
  std::string err;
};

// `wait_for FILE...` and `mark FILE` for scripts, which run in the folder.
constexpr const char* kWords = R"(
wait_for() { for file in "$@"; do while [ ! -e "$file" ]; do sleep 0.01; done; done; }
mark() { : > "$1"; }
rest() { while :; do sleep 0.01; done; }
)";

class Launcher : public testing::Test {
 protected:
  // What the test was started with (`nohup`, a runner that ignores signals) is not the launcher's.
  void SetUp() override {
    for (const int signal : {SIGHUP, SIGINT, SIGPIPE, SIGTERM, SIGUSR1, SIGUSR2, SIGCHLD})
      ::signal(signal, SIG_DFL);
  }

  LaunchOptions ranks(int count, const std::string& script) const {
    LaunchOptions options;
    options.ranks = count;
    options.port = 4711;
    options.command = {"/bin/sh", "-c", "cd '" + folder_.path() + "'" + kWords + script};
    return options;
  }
  static Outcome run(const LaunchOptions& options) {
    testing::internal::CaptureStderr();
    const int code = launch(options);
    return {code, testing::internal::GetCapturedStderr()};
  }
  Outcome run(int count, const std::string& script) const { return run(ranks(count, script)); }
  std::string file(const std::string& name) const { return test::read_text(folder_.path(name)); }

  const TemporaryFolder folder_;
};

void wait_until(const std::function<bool()>& holds) {
  while (!holds()) std::this_thread::sleep_for(std::chrono::milliseconds(5));
}

// Gone, or a zombie that nobody waits for.
bool has_ended(pid_t process) {
  const std::string state = test::read_text(text("/proc/", process, "/stat"));
  const size_t name_end = state.rfind(')');
  return name_end == std::string::npos || state.substr(name_end, 3) == ") Z";
}

TEST_F(Launcher, RanksSeeWhoTheyAre) {
  const Outcome outcome =
      run(3, R"(echo $RANK $LOCAL_RANK $WORLD_SIZE $LOCAL_WORLD_SIZE $MASTER_ADDR $MASTER_PORT \
    $TORCHELASTIC_USE_AGENT_STORE $TORCHELASTIC_RESTART_COUNT > $RANK)");
  EXPECT_EQ(outcome.code, 0);
  EXPECT_EQ(outcome.err, "");
  for (const char* rank : {"0", "1", "2"})
    EXPECT_EQ(file(rank), text(rank, " ", rank, " 3 3 127.0.0.1 4711 True 0\n"));
}

TEST_F(Launcher, OneRankIsEnough) { EXPECT_EQ(run(1, "exit 7").code, 7); }

TEST_F(Launcher, OnlyRankZeroReads) {
  const std::string text = folder_.write("input", "some words\n");
  const int before = ::dup(STDIN_FILENO), input = ::open(text.c_str(), O_RDONLY);
  ::dup2(input, STDIN_FILENO);
  const Outcome outcome = run(2, "cat > $RANK");
  ::dup2(before, STDIN_FILENO);
  ::close(before);
  ::close(input);
  EXPECT_EQ(outcome.code, 0);
  EXPECT_EQ(file("0"), "some words\n");
  EXPECT_EQ(file("1"), "");
}

TEST_F(Launcher, OutputOfOthersComesLineByLineWithTheirNames) {
  const Outcome outcome = run(2, R"([ $RANK = 0 ] && { wait_for done; echo plain >&2; exit 0; }
    echo one; echo two >&2; printf 'no line feed'; mark done)");
  EXPECT_EQ(outcome.code, 0);
  std::multiset<std::string> lines;
  std::istringstream stream(outcome.err);
  for (std::string line; std::getline(stream, line);) lines.insert(line);
  EXPECT_EQ(lines,
            (std::multiset<std::string>{"[rank 1] no line feed", "[rank 1] one", "[rank 1] two", "plain"}));
  EXPECT_THAT(outcome.err, EndsWith("\n"));
}

TEST_F(Launcher, ATorrentOfOutputArrivesWhole) {
  const Outcome outcome = run(3, R"sh([ $RANK = 0 ] && exit 0
    yes "$(printf '%0999d' 0)" | head -c 10000000 >&$RANK)sh");
  EXPECT_EQ(outcome.code, 0);
  std::istringstream stream(outcome.err);
  std::map<std::string, size_t> found;
  for (std::string line; std::getline(stream, line);) {
    ASSERT_EQ(line.size(), 9 + 999u);
    ++found[line.substr(0, 9)];
  }
  EXPECT_EQ(found, (std::map<std::string, size_t>{{"[rank 1] ", 10000}, {"[rank 2] ", 10000}}));
}

TEST_F(Launcher, ALineWithoutEndIsCut) {
  const Outcome outcome = run(2, "[ $RANK = 0 ] || head -c 3000000 /dev/zero | tr '\\0' x");
  EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), 'x'), 3000000);
  EXPECT_GT(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 10);
}

TEST_F(Launcher, ItLivesOnWhenNobodyReads) {
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  const int before = ::dup(STDERR_FILENO);
  ::dup2(ends[1], STDERR_FILENO);
  ::close(ends[0]);
  ::close(ends[1]);
  const int code =
      launch(ranks(2, "[ $RANK = 0 ] && exit 0; trap '' PIPE; head -c 3000000 /dev/zero; mark written"));
  ::dup2(before, STDERR_FILENO);
  ::close(before);
  EXPECT_EQ(code, 0);
  EXPECT_TRUE(std::filesystem::exists(folder_.path("written")));
}

TEST_F(Launcher, WhatARankLeavesBehindHoldsNobodyUp) {
  EXPECT_EQ(run(2, "[ $RANK = 0 ] || { sleep 1000 & echo $! > left; }").code, 0);
  ::kill(std::stoi(file("left")), SIGKILL);
}

TEST_F(Launcher, TheFirstToFailIsNamed) {
  const Outcome outcome = run(3, R"([ $RANK = 2 ] && { echo $$ > new; mv new failed; exit 3; }
    wait_for failed; while kill -0 $(cat failed) 2> /dev/null; do sleep 0.01; done
    echo "I miss rank 2" >&2; exit 1)");
  EXPECT_EQ(outcome.code, 3);
  EXPECT_THAT(outcome.err, EndsWith("\nerror: rank 2 ended with code 3\n"));
  EXPECT_THAT(outcome.err, HasSubstr("[rank 1] I miss rank 2\n"));
  EXPECT_EQ(outcome.err.find("error: "), outcome.err.rfind("error: "));
}

TEST_F(Launcher, WhatTheUserMustMendIsSaidOnce) {
  const Outcome all = run(3, "[ $RANK = 0 ] || echo 'error: no such key' >&2; exit 2");
  EXPECT_EQ(all.code, 2);
  EXPECT_EQ(all.err, "");  // rank 0 has our standard error, and has said it
  EXPECT_EQ(run(1, "exit 2").err, "");
  const Outcome alone = run(4, R"([ $RANK = 0 ] && exit 1
    echo 'a word' >&2; echo "error: of $RANK" >&2; exit $((RANK < 3 ? 2 : 1)))");
  EXPECT_EQ(alone.err.find("error: of 2"), std::string::npos);
  for (const char* line : {"[rank 2] a word\n", "[rank 1] error: of 1\n", "[rank 3] error: of 3\n"})
    EXPECT_THAT(alone.err, HasSubstr(line));
}

TEST_F(Launcher, AKilledRankIsNamed) {
  const Outcome outcome = run(2, "[ $RANK = 1 ] && kill -9 $$; exit 0");
  EXPECT_EQ(outcome.code, 128 + SIGKILL);
  EXPECT_EQ(outcome.err, "error: rank 1 was killed by signal 9 (Killed)\n");
}

TEST_F(Launcher, ARankThatStandsStillIsNamedAndKilled) {
  const Outcome outcome = run(2, R"([ $RANK = 1 ] && { echo $$ > new; mv new pid; kill -STOP $$; exit 0; }
    wait_for pid; until grep -q ') T' /proc/$(cat pid)/stat; do sleep 0.01; done; exit 1)");
  EXPECT_EQ(outcome.code, 1);
  EXPECT_EQ(outcome.err, "error: rank 1 stood still (signal 19); rank 0 ended with code 1\n");
}

TEST_F(Launcher, OthersAreAskedToEndThenKilled) {
  LaunchOptions options = ranks(3, R"(
    [ $RANK = 0 ] && { trap 'mark asked; exit 0' TERM; mark ready0; rest; }
    [ $RANK = 1 ] && { trap '' TERM; mark ready1; rest; }
    wait_for ready0 ready1; exit 5)");
  options.patience = options.last_patience = std::chrono::milliseconds(300);
  const Outcome outcome = run(options);
  EXPECT_EQ(outcome.code, 5);
  EXPECT_EQ(outcome.err, "error: rank 2 ended with code 5\n");
  EXPECT_TRUE(std::filesystem::exists(folder_.path("asked")));
}

TEST_F(Launcher, SignalsReachEveryRankOnce) {
  for (const auto& [name, number] :
       {std::pair{"TERM", SIGTERM}, {"INT", SIGINT}, {"HUP", SIGHUP}, {"USR1", SIGUSR1}, {"USR2", SIGUSR2}}) {
    SCOPED_TRACE(name);
    const Outcome outcome = run(3, text("signal=", name, "; code=", 128 + number, R"(
      trap 'echo x >> got$RANK; exit $code' $signal
      mark $signal$RANK
      [ $RANK = 0 ] && { wait_for ${signal}1 ${signal}2; kill -$signal $PPID; }
      rest)"));
    EXPECT_EQ(outcome.code, 128 + number);
    EXPECT_EQ(outcome.err, "");
  }
  for (const char* rank : {"got0", "got1", "got2"}) EXPECT_EQ(file(rank), "x\nx\nx\nx\nx\n");
}

TEST_F(Launcher, RanksThatASignalKillsHaveBeenStopped) {
  LaunchOptions options =
      ranks(2, "mark ready$RANK; [ $RANK = 0 ] && { wait_for ready1; kill -TERM $PPID; }; rest");
  options.max_restarts = 3;
  const Outcome outcome = run(options);
  EXPECT_EQ(outcome.code, 128 + SIGTERM);
  EXPECT_EQ(outcome.err, "");
}

TEST_F(Launcher, ASecondWishIsFollowedByKilling) {
  LaunchOptions options = ranks(2, R"(trap '' TERM; mark ready$RANK
    [ $RANK = 0 ] && { wait_for ready1; while :; do kill -TERM $PPID; sleep 0.05; done; }
    rest)");
  options.last_patience = std::chrono::milliseconds(1);
  const Outcome outcome = run(options);
  EXPECT_EQ(outcome.code, 128 + SIGKILL);
  EXPECT_THAT(outcome.err, HasSubstr(" was killed by signal 9 (Killed)\n"));
}

TEST_F(Launcher, NohupIsObeyed) {
  ::signal(SIGHUP, SIG_IGN);
  LaunchOptions options = ranks(2, "kill -HUP $PPID; kill -HUP $$; exit $((1 - TORCHELASTIC_RESTART_COUNT))");
  options.max_restarts = 1;  // a launcher that had been signalled would not
  EXPECT_EQ(run(options).code, 0);
}

TEST_F(Launcher, StartsAgainAsOftenAsAllowed) {
  LaunchOptions options = ranks(2, R"(echo $TORCHELASTIC_RESTART_COUNT >> attempts$RANK
    [ $TORCHELASTIC_RESTART_COUNT = 2 ] && exit 0
    [ $RANK = 0 ] && exit 0; kill -9 $$)");
  options.max_restarts = 2;
  const Outcome good = run(options);
  EXPECT_EQ(good.code, 0);
  EXPECT_EQ(good.err,
            "error: rank 1 was killed by signal 9 (Killed)\nrestarting (1 of 2)\n"
            "error: rank 1 was killed by signal 9 (Killed)\nrestarting (2 of 2)\n");
  EXPECT_EQ(file("attempts0"), "0\n1\n2\n");
  options.max_restarts = 1;
  const Outcome bad = run(options);
  EXPECT_EQ(bad.code, 128 + SIGKILL);
  EXPECT_EQ(file("attempts1"), "0\n1\n2\n0\n1\n");
}

TEST_F(Launcher, WhatTheUserMustMendOrHasStoppedDoesNotStartAgain) {
  for (const char* end : {"exit 2", "exit 143", "exit 138", "kill -TERM $$"}) {
    LaunchOptions options = ranks(2, text("[ $RANK = 1 ] && ", end, "; exit 0"));
    options.max_restarts = 5;
    EXPECT_THAT(run(options).err, Not(HasSubstr("restarting"))) << end;
  }
  EXPECT_EQ(run(2, "[ $RANK = 1 ] && exit 143; exit 0").code, 143);
}

TEST_F(Launcher, AProgramThatIsNotThereIsAnError) {
  LaunchOptions options = ranks(2, "");
  options.command[0] = "/nowhere/program";
  test::expect_error<Error>("/nowhere/program: cannot be started: No such file", [&] { launch(options); });
}

TEST_F(Launcher, RanksDieWithTheLauncher) {
  const LaunchOptions options = ranks(2, "echo $$ > new$RANK; mv new$RANK pid$RANK; rest");
  const pid_t launcher = ::fork();
  if (launcher == 0) ::_exit(launch(options));
  for (const char* name : {"pid0", "pid1"})
    wait_until([&] { return std::filesystem::exists(folder_.path(name)); });
  ::kill(launcher, SIGKILL);
  ::waitpid(launcher, nullptr, 0);
  for (const char* name : {"pid0", "pid1"}) {
    const pid_t rank = std::stoi(file(name));
    wait_until([&] { return has_ended(rank); });
  }
}

}  // namespace
}  // namespace longreach
