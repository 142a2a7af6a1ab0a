// Where a run's numbers go: metrics.jsonl, TensorBoard and the progress line, from one record a step.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "distributed/communicator.h"
#include "train/context_figures.h"
#include "train/evaluate.h"
#include "train/run_config.h"

namespace longreach {

struct StepRecord {
  int64_t step = 0;
  // Cross-entropy, mean nats a label over the whole step; distilling: what is minimised. Nothing without
  // labels.
  std::optional<double> loss;
  double gradient_norm = -1;  // negative: there was no gradient
  double learning_rate = 0;
  int64_t tokens = 0;        // tokens of this step, labelled or not
  int64_t total_tokens = 0;  // since the run began, restarts included
  double seconds = 0;        // of this step, data wait included
  double total_seconds = 0;  // of training since the run began, restarts included
  double data_wait_seconds = 0;
  double flops = 0;      // floating-point operations of this step
  bool skipped = false;  // not finite: parameters untouched
  Traffic traffic;       // between ranks, by label
  std::vector<std::pair<std::string, double>> auxiliary;
  std::vector<double> seconds_of_ranks;  // without waiting for others (StepLosses)
  std::optional<ContextFigures> context;
};

class RunLog {
 public:
  // first_step: the step the run continues after; later lines of an earlier attempt are dropped.
  // held_out_rows: of all held-out text, for the time left. ranks: how many train the run; only the first
  // writes files, others have the progress line alone.
  RunLog(const RunConfig& config, int64_t first_step, int64_t held_out_rows, const Group& ranks = nullptr);
  ~RunLog();

  // held_out: the evaluation made after this step, if any.
  void step(const StepRecord& record, const std::optional<Evaluation>& held_out);
  // An evaluation has read `done` of its `rows` rows; the first call is with 0.
  void evaluating(int64_t done, int64_t rows);
  void sync();  // makes the lines so far durable, before a checkpoint that relies on them
  void sample(int64_t step, const std::string& sample);
  void say(const std::string& line);      // a line of its own, between progress lines
  void working(const std::string& line);  // what is being done, for as long as it takes
  void finish();                          // ends the progress line

 private:
  struct Sinks;
  std::unique_ptr<Sinks> sinks_;
};

}  // namespace longreach
