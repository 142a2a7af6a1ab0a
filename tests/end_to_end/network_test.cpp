// Two ranks in two network namespaces, with one cable between them that is cut, loses packets, or counts.
#include <gmock/gmock.h>
#include <signal.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "checkpoints/checkpoint.h"
#include "core/error.h"
#include "tests/end_to_end/launch_fixture.h"
#include "tests/support/need_programs.h"

namespace longreach::test {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

Words operator+(Words all, const Words& more) {
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

// The namespaces belong to two processes that sleep, and end with them: with the test, however it ends.
class Network : public Launch {
 protected:
  void SetUp() override {
    need_programs({"ip", "nft", "unshare", "nsenter", "setpriv"}, "iproute2 nftables");
    if (IsSkipped() || HasFatalFailure()) return;
    const ProgramResult tried =
        run_command({"unshare", "--net", "sh", "-c",
                     "ip link add one type veth peer name other && nft add table inet lossy"});
    if (tried.code != 0)
      GTEST_SKIP() << "SKIPPED, NOT TESTED: this system makes no network namespaces and cables for us: "
                   << tried.err;
    for (RunningProgram& holder : holders_) hold_namespace(holder);
    run({"ip", "link", "add", "cable", "netns", text(holders_[0].pid), "type", "veth", "peer", "name",
         "cable", "netns", text(holders_[1].pid)});
    for (const int rank : {0, 1}) {
      run_inside(rank, {"ip", "address", "add", text("10.77.0.", rank + 1, "/24"), "dev", "cable"});
      for (const char* link : {"lo", "cable"}) run_inside(rank, {"ip", "link", "set", link, "up"});
    }
  }
  void TearDown() override {
    for (const RunningProgram& holder : holders_) {
      if (holder.pid <= 0) continue;
      ::kill(holder.pid, SIGKILL);
      wait_program(holder);
    }
  }

  Words inside(int rank) const {
    return {"nsenter", text("--net=/proc/", holders_[static_cast<size_t>(rank)].pid, "/ns/net")};
  }
  static std::string run(const Words& command) {
    const ProgramResult result = run_command(command);
    EXPECT_EQ(result.code, 0) << command[0] << " " << result.err;
    return result.out;
  }
  std::string run_inside(int rank, const Words& command) const { return run(inside(rank) + command); }
  void cut() const { run_inside(0, {"ip", "link", "set", "cable", "down"}); }
  void mend() const { run_inside(0, {"ip", "link", "set", "cable", "up"}); }
  // Of what comes to either rank.
  void lose_one_packet_in_twenty() const {
    for (const int rank : {0, 1})
      run_inside(rank,
                 {"nft",
                  "add table inet lossy; add chain inet lossy in { type filter hook input priority 0; }; "
                  "add rule inet lossy in numgen random mod 20 < 1 counter drop"});
  }
  int64_t packets_lost_by(int rank) const {
    const auto rules = nlohmann::json::parse(run_inside(rank, {"nft", "-j", "list", "ruleset"}));
    for (const auto& entry : rules.at("nftables"))
      if (entry.contains("rule"))
        for (const auto& part : entry["rule"]["expr"])
          if (part.contains("counter")) return part["counter"]["packets"].get<int64_t>();
    return 0;
  }
  // What `rank` has put on the cable, and how much of it was no new data of a connection: headers, of
  // Ethernet, IP and TCP with timestamps, of which a busy machine needs more since it acknowledges smaller
  // pieces; and pieces that were sent again since an answer was late.
  struct Sent {
    int64_t bytes, around;
  };
  Sent sent_by(int rank) const {
    constexpr int64_t kHeaders = 14 + 20 + 32, kLargestPiece = 1500 - 20 - 32;
    const auto links = nlohmann::json::parse(run_inside(rank, {"ip", "-s", "-j", "link", "show", "cable"}));
    const auto& counters = links.at(0).at("stats64").at("tx");
    const auto packets = counters.at("packets").get<int64_t>();
    return {counters.at("bytes").get<int64_t>(),
            packets * kHeaders + pieces_sent_again(rank) * kLargestPiece};
  }
  // Of the two lines of TCP, the first one has the names of what the second one counts.
  int64_t pieces_sent_again(int rank) const {
    std::istringstream lines(run_inside(rank, {"grep", "^Tcp:", "/proc/self/net/snmp"}));
    std::string names, counts, name, count;
    std::getline(lines, names);
    std::getline(lines, counts);
    std::istringstream of_names(names), of_counts(counts);
    while (of_names >> name && of_counts >> count)
      if (name == "RetransSegs") return std::stoll(count);
    ADD_FAILURE() << "no RetransSegs: " << names;
    return 0;
  }

  std::vector<RunningProgram> start_both(const Words& overrides) const {
    std::vector<RunningProgram> ranks;
    for (const int rank : {0, 1})
      ranks.push_back(start_rank(rank, {29500, "10.77.0.1"}, overrides, inside(rank) + Words{"env"}));
    return ranks;
  }
  static void expect_ended_well(const std::vector<RunningProgram>& ranks) {
    for (const RunningProgram& rank : ranks) {
      const ProgramResult result = wait_program(rank);
      EXPECT_EQ(result.code, 0) << result.err;
    }
  }

 private:
  void hold_namespace(RunningProgram& holder) const {
    holder =
        start_command({"setpriv", "--pdeathsig", "KILL", "unshare", "--net", "sleep", "infinity"}, folder_);
    const auto name = [](const std::string& process) {
      std::error_code ignored;
      return fs::read_symlink("/proc/" + process + "/ns/net", ignored);
    };
    while (name(text(holder.pid)) == name("self")) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }

  RunningProgram holders_[2];
};

TEST_F(Network, APartitionIsNamedOnBothSides) {
  const auto ranks = start_both({"--training.steps", "1000000", "--checkpoint.interval", "1",
                                 "--checkpoint.keep_latest_k", "3", "--comm.train_timeout_seconds", "8"});
  wait_for_step("run", 3);
  cut();
  const ProgramResult first = wait_program(ranks[0]), second = wait_program(ranks[1]);
  EXPECT_EQ(first.code, 1);
  EXPECT_EQ(second.code, 1);
  EXPECT_THAT(first.err, HasSubstr("error: rank 1 did not come to \""));
  EXPECT_THAT(second.err, HasSubstr("error: rank 0 (it kept the store) was lost in \""));
  const auto kept = list_checkpoints(folder_.path("run/checkpoint"));
  EXPECT_GE(kept.size(), 2u);
  for (const auto& [step, path] : kept) EXPECT_NO_THROW(verify_checkpoint(path));
}

// The steps are made slow so that there are some left when the cable is cut.
TEST_F(Network, ThreeSecondsWithoutACableChangeNothing) {
  ASSERT_EQ(train(2, "whole").code, 0);
  const auto ranks = start_both({"--fault.inject", "slow:rank=1:step=1:ms=200"});
  wait_for_step("run", 3);
  cut();
  std::this_thread::sleep_for(std::chrono::seconds(3));
  mend();
  expect_ended_well(ranks);
  expect_same_run("whole", "run");
  double longest = 0;
  for (const MetricsLine& line : read_metrics(folder_.path("run")))
    longest = std::max(longest, line.at("comm_seconds"));
  EXPECT_GT(longest, 2);
}

TEST_F(Network, LostPacketsChangeNothing) {
  ASSERT_EQ(train(2, "whole").code, 0);
  lose_one_packet_in_twenty();
  expect_ended_well(start_both({}));
  expect_same_run("whole", "run");
  for (const int rank : {0, 1}) EXPECT_GT(packets_lost_by(rank), 0);
}

// A model whose gradients are much against the few bytes that ranks say otherwise.
TEST_F(Network, TheCableCarriesWhatIsCounted) {
  expect_ended_well(start_both({"--model.hidden_size", "256", "--training.steps", "4"}));
  double counted = 0;
  for (const MetricsLine& line : read_metrics(folder_.path("run"))) counted += line.at("comm_bytes");
  const Sent sent = sent_by(0);
  const auto data = static_cast<double>(sent.bytes - sent.around);
  EXPECT_GE(static_cast<double>(sent.bytes), counted);
  EXPECT_LE(data, 1.005 * counted);
  RecordProperty("data_over_counted", text(data / counted));
  RecordProperty("sent_over_counted", text(static_cast<double>(sent.bytes) / counted));
}

}  // namespace
}  // namespace longreach::test
