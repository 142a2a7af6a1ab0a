// metrics.jsonl: full precision, valid JSON whatever the number, one line a step across resumes.
#include "train/metrics.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "tests/support/files.h"

namespace longreach {
namespace {

TEST(Metrics, KeepsEveryBitAndTheOrder) {
  const double loss = 0.1 + 0.2, small = 5e-324, large = -1.7976931348623157e308;
  const std::string line = metrics_line(7, loss, {{"zeta", small}, {"alpha", large}, {"tokens", 98304}});
  const auto json = nlohmann::ordered_json::parse(line);
  EXPECT_EQ(json["loss"].get<double>(), loss);
  EXPECT_EQ(json["zeta"].get<double>(), small);
  EXPECT_EQ(json["alpha"].get<double>(), large);
  EXPECT_EQ(line.substr(0, 20), R"({"step": 7, "loss": )");
  EXPECT_NE(line.find(R"("tokens": 98304})"), std::string::npos);
  EXPECT_LT(line.find("zeta"), line.find("alpha"));
}

TEST(Metrics, WritesNanAndInfinityAsNullWithAFlag) {
  const double inf = std::numeric_limits<double>::infinity();
  EXPECT_EQ(
      metrics_line(1, std::nan(""), {{"a\"b", inf}, {"c", -inf}}),
      R"({"step": 1, "loss": null, "loss_is": "nan", "a\"b": null, "a\"b_is": "inf", "c": null, "c_is": "-inf"})");
}

TEST(Metrics, AppendsAndResumes) {
  TemporaryFolder folder;
  const std::string path = folder.path("metrics.jsonl");
  {
    MetricsLog log(path, -1);
    for (int64_t step = 1; step <= 5; ++step) log.append(step, static_cast<double>(step));
    EXPECT_THROW(log.append(5, 1.0), TrainingError);
    log.sync();
  }
  const std::string whole = test::read_text(path);
  { MetricsLog unchanged(path, 5); }
  EXPECT_EQ(test::read_text(path), whole);
  {
    MetricsLog log(path, 3);
    EXPECT_THROW(log.append(3, 1.0), TrainingError);
    log.append(4, 44.0);
  }
  EXPECT_EQ(test::read_text(path), metrics_line(1, 1, {}) + "\n" + metrics_line(2, 2, {}) + "\n" +
                                       metrics_line(3, 3, {}) + "\n" + metrics_line(4, 44, {}) + "\n");
  { MetricsLog fresh(path, -1); }
  EXPECT_EQ(test::read_text(path), "");
}

TEST(Metrics, DropsATornLastLineAndForeignOnes) {
  TemporaryFolder folder;
  const std::string path = folder.path("metrics.jsonl"), one = metrics_line(1, 1, {}) + "\n",
                    two = metrics_line(2, 2, {}) + "\n";
  test::write_file(path, one + "not json\n[1]\n" + one + two + R"({"step": 3, "loss": 1.5)");
  { MetricsLog log(path, 100); }
  EXPECT_EQ(test::read_text(path), one + two);
}

TEST(Metrics, FailsClearlyWhereItCannotWrite) {
  EXPECT_THROW(MetricsLog("/no/such/folder/metrics.jsonl", -1), TrainingError);
  TemporaryFolder folder;
  MetricsLog full(folder.path("metrics.jsonl"), -1);
  const pid_t child = ::fork();
  if (child == 0) {
    struct rlimit limit {
      0, 0
    };
    std::signal(SIGXFSZ, SIG_IGN);
    ::setrlimit(RLIMIT_FSIZE, &limit);
    try {
      full.append(1, 1.0);
    } catch (const TrainingError&) {
      ::_exit(0);
    }
    ::_exit(1);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
}

}  // namespace
}  // namespace longreach
