// The progress line's text and manners, and the machine's figures it shows.
#include "train/progress.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <vector>

#include "layers/ops/cpu/parallel.h"
#include "train/peak_share.h"

namespace longreach {
namespace {

template <class Use>
std::string written(bool terminal, const Use& use) {
  std::FILE* file = std::tmpfile();
  {
    ProgressLine line(file, 1000, terminal);
    use(line);
  }
  std::string out(static_cast<size_t>(std::ftell(file)), '\0');
  std::rewind(file);
  EXPECT_EQ(std::fread(out.data(), 1, out.size(), file), out.size());
  std::fclose(file);
  return out;
}

std::string shown(bool terminal, int64_t steps) {
  return written(terminal, [&](ProgressLine& line) {
    for (int64_t step = 1; step <= steps; ++step)
      line.update({.step = step, .last_step = steps, .loss = 1.0});
    line.message("saved");
  });
}

TEST(Progress, NamesEveryFigure) {
  EXPECT_EQ(
      progress_text({.step = 120,
                     .last_step = 1000,
                     .loss = 2.34567,
                     .tokens_per_second = 12345,
                     .peak_share = 0.412,
                     .gradient_norm = 1.234,
                     .learning_rate = 3e-4,
                     .memory_bytes = int64_t{3} << 29,
                     .eta_seconds = 192}),
      "step  120/1000  loss 2.3457  12.3k tok/s  41% of peak  grad 1.23  lr 3.0e-04  1.50 GiB  ETA 3m12s");
  EXPECT_EQ(progress_text({.step = 1, .last_step = 9, .loss = std::nan(""), .tokens_per_second = 800}),
            "step 1/9  loss nan  800 tok/s  lr 0.0e+00");
  EXPECT_EQ(progress_text({.step = 1, .last_step = 9, .tokens_per_second = 800}),
            "step 1/9  no label  800 tok/s  lr 0.0e+00");
}

TEST(Progress, WritesDurations) {
  EXPECT_EQ(duration_text(9.4), "9s");
  EXPECT_EQ(duration_text(59.6), "1m00s");
  EXPECT_EQ(duration_text(7500), "2h05m");
  EXPECT_EQ(duration_text(93600), "1d02h");
  EXPECT_EQ(duration_text(INFINITY), "?");
}

TEST(Progress, IsOneUpdatingLineOnATerminalAndFewLinesElsewhere) {
  const std::string plain = shown(false, 50), terminal = shown(true, 50);
  EXPECT_EQ(std::count(plain.begin(), plain.end(), '\n'), 3) << plain;  // first, last, message
  EXPECT_EQ(plain.find('\r'), std::string::npos);
  EXPECT_EQ(std::count(terminal.begin(), terminal.end(), '\n'), 2) << terminal;  // message, end
  EXPECT_GE(std::count(terminal.begin(), terminal.end(), '\r'), 3);
  EXPECT_NE(terminal.find("step 50/50"), std::string::npos);
}

TEST(Progress, SaysWhatGoesOnBetweenSteps) {
  EvaluationClock clock;
  EXPECT_EQ(clock.at(0, 40), "evaluating 0/40 rows");
  EXPECT_EQ(clock.at(40, 40), "evaluating 40/40 rows  ETA 0s");
  const auto evaluate = [&](ProgressLine& line) {
    usleep(150000);  // a terminal's line changes at most ten times a second
    line.activity("evaluating 3/4 rows");
  };
  EXPECT_NE(written(true, evaluate).find("\revaluating 3/4 rows"), std::string::npos);
  EXPECT_EQ(written(false, evaluate), "") << "a log hears of it after ten seconds of silence";
}

// That others do not lengthen the clock behind it, tests/layers/ops/cpu/peak_test.cpp shows.
TEST(Machine, MeasuresItsPeakOnce) {
  set_num_threads(1);
  const double peak = measured_peak(PeakDtype::kFloat32);
  EXPECT_GE(measured_peak(PeakDtype::kBFloat16), peak);
  EXPECT_EQ(measured_peak(PeakDtype::kFloat32), peak);
}

TEST(Machine, NoShareOfThePeakExceedsOne) {
  PeakShare share(100.0);
  EXPECT_EQ(share.of(50.0), 0.5);
  EXPECT_EQ(share.of(200.0), 1.0) << "the peak was measured too low";
  EXPECT_EQ(share.of(50.0), 0.25) << "and is now known better";
  EXPECT_EQ(PeakShare(0.0).of(50.0), -1.0) << "not known, not shown";
}

}  // namespace
}  // namespace longreach
