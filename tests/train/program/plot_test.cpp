// Reading of metrics and benchmarks, and pictures through gnuplot where it is installed.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>

#include "core/error.h"
#include "tests/support/files.h"
#include "train/metrics.h"
#include "train/program/plot/gnuplot.h"
#include "train/program/plot/series.h"
#include "train/program/verbs.h"

namespace longreach {
namespace {

using ::testing::HasSubstr;

template <class Call>
std::string error_of(Call call) {
  try {
    call();
    return {};
  } catch (const UserError& error) {
    EXPECT_EQ(one_line(error.what()), error.what());
    return error.what();
  }
}

void write_run(const std::string& folder) {
  std::filesystem::create_directories(folder);
  MetricsLog log(folder + "/metrics.jsonl", -1);
  for (int step = 1; step <= 200; ++step) {
    NamedNumbers numbers = {{"tokens", 100.0 * step}, {"grad_norm", 1.0 / step}};
    if (step % 50 == 0) numbers.emplace_back("valid_loss", 2.0);
    log.append(step, step == 17 ? std::nan("") : 3.0 / std::sqrt(step), numbers);
  }
}

bool has_gnuplot() { return std::system("gnuplot --version > /dev/null 2>&1") == 0; }

TEST(Plot, ReadsCurvesAndLeavesOutWhatIsNoNumber) {
  TemporaryFolder folder;
  write_run(folder.path("a run"));
  const auto curves = plot::read_run(folder.path("a run"), "tokens", {"loss", "grad_norm"});
  ASSERT_EQ(curves.size(), 2u);
  EXPECT_EQ(curves[0].raw.x.size(), 199u);
  EXPECT_EQ(curves[1].raw.x.size(), 200u);
  EXPECT_EQ(curves[0].raw.x.back(), 20000.0);
  EXPECT_EQ(curves[0].held_out.y, std::vector<double>(4, 2.0));
  EXPECT_EQ(curves[0].smooth.label, "a run");
  EXPECT_EQ(plot::read_run(folder.path("a run/metrics.jsonl"), "step", {"loss"})[0].smooth.label, "a run");
}

TEST(Plot, SmoothsWithoutBias) {
  EXPECT_EQ(plot::smoothed({1, 5, 2}), (std::vector<double>{1, 5, 2})) << "few points are left as they are";
  for (const double value : plot::smoothed(std::vector<double>(1000, 3.0))) EXPECT_NEAR(value, 3.0, 1e-12);
}

TEST(Plot, SkipsATornLastLineAndNamesABrokenOne) {
  TemporaryFolder folder;
  const std::string path = folder.path("metrics.jsonl"), line = metrics_line(1, 2.0, {}) + "\n";
  test::write_file(path, line + R"({"step": 2, "lo)");
  EXPECT_EQ(plot::read_run(folder.path(), "step", {"loss"})[0].raw.x.size(), 1u);
  test::write_file(path, line + "oops\n" + line);
  EXPECT_THAT(error_of([&] { plot::read_run(folder.path(), "step", {"loss"}); }),
              HasSubstr("metrics.jsonl:2:"));
  test::write_file(path, line);
  EXPECT_THAT(error_of([&] { plot::read_run(folder.path(), "step", {"los"}); }), HasSubstr("`loss`"));
  EXPECT_THAT(error_of([&] { plot::read_run(folder.path(), "tokens", {"loss"}); }), HasSubstr("`tokens`"));
  test::write_file(path, "");
  EXPECT_THAT(error_of([&] { plot::read_run(folder.path(), "step", {"loss"}); }),
              HasSubstr("no metrics yet"));
  EXPECT_THAT(error_of([&] { plot::read_run(folder.path("absent"), "step", {"loss"}); }),
              HasSubstr("cannot be read"));
}

TEST(Plot, ReadsScalingRows) {
  TemporaryFolder folder;
  const std::string path = folder.path("b.json");
  test::write_file(path, R"({"machine": "x", "rows": [{"name": "ours", "T": 4000, "seconds": 2, "threads": 1},
      {"name": "ours", "T": 1000, "seconds": 1}, {"name": "ours", "T": 1000, "seconds": 0.5}, {"name": "peer", "T": 10, "seconds": 1}]})");
  const auto series = plot::read_scaling(path);
  ASSERT_EQ(series.size(), 2u);
  EXPECT_EQ(series[0].x, (std::vector<double>{1000, 4000}));
  EXPECT_DOUBLE_EQ(series[0].y[0], 500.0);
  for (const char* bad :
       {"", "[]", R"({"rows": 1})", R"({"rows": []})", R"({"rows": [{"name": "a", "T": 0, "seconds": 1}]})",
        R"({"rows": [{"name": 1, "T": 1, "seconds": 1}]})"}) {
    test::write_file(path, bad);
    EXPECT_NE(error_of([&] { plot::read_scaling(path); }), "") << bad;
  }
}

TEST(Plot, ReadsRowsOfRanks) {
  TemporaryFolder folder;
  const std::string path = folder.path("b.json");
  test::write_file(path, R"({"rows": [{"name": "dense", "ranks": 4, "ratio": 3.1, "waited": 0.1},
      {"name": "dense", "ranks": 2, "ratio": 1.8}, {"name": "s2", "ranks": 2, "ratio": 1.9}]})");
  EXPECT_TRUE(plot::tells_ranks(path));
  const auto series = plot::read_ranks(path);
  ASSERT_EQ(series.size(), 2u);
  EXPECT_EQ(series[0].label, "dense");
  EXPECT_EQ(series[0].x, (std::vector<double>{2, 4}));
  EXPECT_EQ(series[0].y, (std::vector<double>{1.8, 3.1}));
  EXPECT_THAT(plot::ranks_script("a.png", series), HasSubstr("title 'ideal'"));
  EXPECT_NE(error_of([&] { plot::read_scaling(path); }), "");
  test::write_file(path, R"({"rows": [{"name": "dense", "ranks": 2, "ratio": 0}]})");
  EXPECT_THAT(error_of([&] { plot::read_ranks(path); }), HasSubstr("ratio > 0"));
  test::write_file(path, R"({"rows": [{"name": "ours", "T": 10, "seconds": 1}]})");
  EXPECT_FALSE(plot::tells_ranks(path));
}

TEST(Plot, DrawsPngAndSvg) {
  if (!has_gnuplot()) GTEST_SKIP() << "gnuplot is not installed";
  TemporaryFolder folder;
  write_run(folder.path("it's [a] {run}"));
  write_run(folder.path("b"));
  const std::string first = folder.path("it's [a] {run}"), second = folder.path("b"),
                    svg = folder.path("out put.svg");
  EXPECT_EQ(plot_verb({first, second, "--x", "tokens", "--y", "loss,grad_norm", "--output", svg}), 0);
  EXPECT_THAT(test::read_text(svg), HasSubstr("held out"));
  EXPECT_THAT(test::read_text(svg), HasSubstr("{run}"));
  EXPECT_EQ(plot_verb({first}), 0);
  EXPECT_EQ(test::read_text(first + "/plot.png").substr(1, 3), "PNG");
  test::write_file(
      folder.path("b.json"),
      R"({"rows": [{"name": "a", "T": 1024, "seconds": 1}, {"name": "a", "T": 2048, "seconds": 3}]})");
  EXPECT_EQ(plot_verb({folder.path("b.json")}), 0);
  EXPECT_EQ(test::read_text(folder.path("b.png")).substr(1, 3), "PNG");
}

TEST(Plot, SaysWhatIsWrongBeforeDrawing) {
  TemporaryFolder folder;
  write_run(folder.path("a"));
  EXPECT_THAT(error_of([&] {
                plot_verb({folder.path("a"), "--output", "x.pdf"});
              }),
              HasSubstr("allowed: .png, .svg"));
  EXPECT_THAT(error_of([&] { plot_verb({folder.path("a"), "b.json"}); }), HasSubstr("cannot share"));
  EXPECT_THAT(error_of([&] { plot_verb({folder.path("a"), "--x", "hours"}); }), HasSubstr("hours"));
  EXPECT_THAT(error_of([&] {
                plot_verb({folder.path("a"), "--output", "/no/such/x.png"});
              }),
              HasSubstr("cannot be written"));
  EXPECT_NE(error_of([] { plot_verb({}); }), "");
}

TEST(Plot, NamesThePackageWhenGnuplotIsMissing) {
  TemporaryFolder folder;
  write_run(folder.path("a"));
  const std::string path = std::getenv("PATH");
  ::setenv("PATH", folder.path().c_str(), 1);
  EXPECT_THAT(error_of([&] { plot_verb({folder.path("a")}); }), HasSubstr("apt-get install gnuplot-nox"));
  ::setenv("PATH", path.c_str(), 1);
  EXPECT_FALSE(std::filesystem::exists(folder.path("a/plot.tmp.png")));
}

TEST(Plot, HeatMapsKeepEveryNumberAndAreDrawn) {
  const std::vector<plot::HeatMap> maps{
      {"it's a gate", "key block", "query", 2, 3, {0, 0.5f, 1, 0.25f, 0, 7}},
      {"truth", "key block", "query", 1, 1, {1}, {"it's"}, {"512"}, std::pair{0.0, 1.0}}};
  const std::string script = plot::heat_maps_script("maps.png", maps);
  EXPECT_THAT(script, HasSubstr("$m0 << EOD\n0 0.5 1\n0.25 0 7\nEOD"));
  EXPECT_THAT(script, HasSubstr("set title 'it''s a gate'"));
  EXPECT_THAT(script, HasSubstr("set xtics autofreq\nset ytics autofreq\nset xrange [-0.5:2.5]\n"
                                "set yrange [1.5:-0.5]\nset cbrange [*:*]\nplot $m0"));
  // gnuplot takes no image of one row or column.
  EXPECT_THAT(script, HasSubstr("$m1 << EOD\n1 1\n1 1\nEOD"));
  EXPECT_THAT(script, HasSubstr("set xtics ('it''s' 0)\nset ytics ('512' 0)\nset xrange [-0.5:0.5]\n"
                                "set yrange [0.5:-0.5]\nset cbrange [0:1]\nplot $m1"));
  if (!has_gnuplot()) GTEST_SKIP() << "gnuplot is not installed";
  TemporaryFolder folder;
  plot::draw(folder.path("maps.png"),
             [&](const std::string& file) { return plot::heat_maps_script(file, maps); });
  EXPECT_GT(std::filesystem::file_size(folder.path("maps.png")), 1000u);
}

}  // namespace
}  // namespace longreach
