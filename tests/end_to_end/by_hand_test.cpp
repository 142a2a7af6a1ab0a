// Ranks that nobody launched, by torchrun's variables: how they meet, and what they say when they do not.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>

#include "core/error.h"
#include "tests/end_to_end/launch_fixture.h"

namespace longreach::test {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class ByHand : public Launch {
 protected:
  const Meeting at_{20000 + ::getpid() % 12000};
};

TEST_F(ByHand, RanksTrainAndRanksThatDifferDoNot) {
  RunningProgram first = start_rank(0, at_, {"--training.steps", "2"}),
                 second = start_rank(1, at_, {"--training.steps", "2"});
  EXPECT_EQ(wait_program(second).code, 0);
  EXPECT_EQ(wait_program(first).code, 0);
  const auto differ = [&](const std::string& key, const std::string& one, const std::string& other) {
    first = start_rank(0, at_, {"--" + key, one});
    second = start_rank(1, at_, {"--" + key, other});
    const ProgramResult results[] = {wait_program(first), wait_program(second)};
    for (const ProgramResult& result : results) {
      EXPECT_EQ(result.code, 2);
      EXPECT_THAT(result.err, HasSubstr(text("error: ranks differ in their config: rank 0 has ", key, " = ",
                                             one, ", rank 1 has ", key, " = ", other)));
    }
  };
  differ("training.steps", "3", "4");
  differ("parallel.data_parallel_replicate_degree", "1", "2");  // each is a mesh of two ranks
  differ("parallel.data_parallel_replicate_degree", "3", "2");  // and this is none
}

TEST_F(ByHand, ARankThatDoesNotComeIsNamed) {
  const auto alone = [&](int rank) {
    const ProgramResult result = wait_program(start_rank(rank, at_, {"--comm.init_timeout_seconds", "2"}));
    EXPECT_EQ(result.code, 1);
    EXPECT_FALSE(fs::exists(folder_.path("run")));
    return result.err;
  };
  EXPECT_THAT(alone(0), HasSubstr("error: rank 1 did not come within 2 s (comm.init_timeout_seconds)"));
  EXPECT_THAT(alone(1),
              HasSubstr(text("error: rank 0 did not come: nobody holds the store at 127.0.0.1:", at_.port)));
}

// It keeps what the others would ask who is missing.
TEST_F(ByHand, TheLossOfRankZeroIsSaid) {
  const RunningProgram first = start_rank(0, at_, {"--fault.inject", "kill:rank=0:step=3"}),
                       second = start_rank(1, at_, {});
  EXPECT_EQ(wait_program(first).code, 128 + SIGKILL);
  const ProgramResult left = wait_program(second);
  EXPECT_EQ(left.code, 1);
  EXPECT_THAT(left.err, HasSubstr("error: rank 0 (it kept the store) was lost in \""));
}

// Holds a port of every interface, as another job's program does.
class PortInUse : public Launch {
 protected:
  PortInUse() {
    sockaddr_in any{};
    any.sin_family = AF_INET;
    socklen_t size = sizeof any;
    auto* const address = reinterpret_cast<sockaddr*>(&any);
    const bool held = ::bind(socket_, address, size) == 0 && ::listen(socket_, 8) == 0 &&
                      ::getsockname(socket_, address, &size) == 0;
    EXPECT_TRUE(held);
    port_ = ntohs(any.sin_port);
  }
  ~PortInUse() override { ::close(socket_); }

  const int socket_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  int port_ = 0;
};

TEST_F(PortInUse, LaunchTakesAnother) {
  const std::string port = text(port_);
  ::setenv("MASTER_PORT", port.c_str(), 1);
  const ProgramResult result = train(2, "run", {"--training.steps", "2"});
  ::unsetenv("MASTER_PORT");
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(losses(folder_.path("run")).size(), 2u);
}

TEST_F(PortInUse, RanksThatAreToldToUseItSaySo) {
  const Words soon = {"--comm.init_timeout_seconds", "3"};
  const RunningProgram first = start_rank(0, {port_}, soon), second = start_rank(1, {port_}, soon);
  const ProgramResult refused = wait_program(first), alone = wait_program(second);
  EXPECT_EQ(refused.code, 2);
  EXPECT_THAT(refused.err, HasSubstr(text("error: MASTER_PORT = ", port_, ": ranks cannot meet there: ")));
  EXPECT_EQ(alone.code, 1);
  EXPECT_THAT(alone.err, HasSubstr(text("error: the store at 127.0.0.1:", port_, " cannot be reached")));
  EXPECT_FALSE(fs::exists(folder_.path("run")));
}

}  // namespace
}  // namespace longreach::test
