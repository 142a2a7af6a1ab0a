#include "train/run_log.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <numeric>

#include "core/error.h"
#include "core/machine.h"
#include "core/verbose.h"
#include "train/metrics.h"
#include "train/peak_share.h"
#include "train/progress.h"
#include "train/remaining_time.h"
#include "train/tensorboard.h"

namespace longreach {

namespace {

// Of all ranks; 0 where it is not measured.
double peak_of(const RunConfig& run, const Group& ranks) {
  if (run.parallel.device != "cpu" || rank_in(ranks) > 0) return 0;
  const Stage stage("measuring the peak");
  return size_of(ranks) * measured_peak(run.training.mixed_precision_param == "bfloat16"
                                            ? PeakDtype::kBFloat16
                                            : PeakDtype::kFloat32);
}

int64_t last_step(const RunConfig& run) {
  return run.training.stop_at > 0 ? run.training.stop_at : run.training.steps;
}

RunPlan plan_of(const RunConfig& run, int64_t held_out_rows) {
  const bool final = run.validation.final && last_step(run) == run.training.steps;
  const int64_t wanted = run.validation.rows;
  return {.last_step = last_step(run),
          .rows_per_step = run.training.batch_size * run.training.gradient_accumulation_steps,
          .validation_freq = run.validation.freq,
          .validation_rows = wanted > 0 ? std::min(wanted, held_out_rows) : held_out_rows,
          .final_rows = final ? held_out_rows : 0};
}

}  // namespace

struct RunLog::Sinks {
  Sinks(const RunConfig& run, int64_t first_step, int64_t held_out_rows, const Group& ranks)
      : config(run), peak(peak_of(run, ranks)), remaining(plan_of(run, held_out_rows)) {
    if (rank_in(ranks) > 0) return;
    metrics.emplace(run.job.dump_folder + "/metrics.jsonl", first_step);
    if (run.metrics.enable_tensorboard)
      tensorboard = std::make_unique<TensorboardWriter>(
          run.job.dump_folder + "/" + run.metrics.save_tb_folder, first_step);
  }

  RunConfig config;
  std::optional<MetricsLog> metrics;
  std::unique_ptr<TensorboardWriter> tensorboard;
  ProgressLine progress{stdout, /*plain_seconds=*/0.0};
  const bool terminal = isatty(STDOUT_FILENO) != 0;
  PeakShare peak;
  RemainingTime remaining;
  EvaluationClock evaluation;
};

namespace {

// Totals, then each label's: comm_bytes.gradients.
void add_traffic(NamedNumbers& numbers, const Traffic& traffic) {
  if (traffic.empty()) return;
  LabelTraffic total;
  NamedNumbers by_label;
  for (const auto& [label, moved] : traffic) {
    total.bytes += moved.bytes;
    total.seconds += moved.seconds;
    by_label.emplace_back("comm_bytes." + label, static_cast<double>(moved.bytes));
    by_label.emplace_back("comm_seconds." + label, moved.seconds);
  }
  numbers.emplace_back("comm_bytes", static_cast<double>(total.bytes));
  numbers.emplace_back("comm_seconds", total.seconds);
  numbers.insert(numbers.end(), by_label.begin(), by_label.end());
}

// Who makes the others wait.
void add_slowest(NamedNumbers& numbers, const std::vector<double>& seconds) {
  if (seconds.size() < 2) return;
  const auto slowest = std::max_element(seconds.begin(), seconds.end());
  const double mean =
      std::accumulate(seconds.begin(), seconds.end(), 0.0) / static_cast<double>(seconds.size());
  numbers.emplace_back("slowest_rank", static_cast<double>(slowest - seconds.begin()));
  numbers.emplace_back("slowest_over_mean", *slowest / mean);
}

void add_context(NamedNumbers& numbers, const ContextFigures& context) {
  numbers.emplace_back("context_imbalance", context.imbalance);
  numbers.emplace_back("context_slowest_over_mean", context.slowest_over_mean);
  if (context.selected_union) numbers.emplace_back("selected_union", *context.selected_union);
}

NamedNumbers numbers_of(const StepRecord& record, double peak_share) {
  NamedNumbers numbers;
  if (record.loss) numbers.emplace_back("grad_norm", record.gradient_norm);
  const NamedNumbers others = {{"lr", record.learning_rate},
                               {"tokens", static_cast<double>(record.total_tokens)},
                               {"tokens_per_second", static_cast<double>(record.tokens) / record.seconds},
                               {"step_seconds", record.seconds},
                               {"seconds", record.total_seconds},
                               {"data_wait_seconds", record.data_wait_seconds},
                               {"memory_bytes", static_cast<double>(resident_bytes())}};
  numbers.insert(numbers.end(), others.begin(), others.end());
  if (peak_share >= 0) numbers.emplace_back("peak_share", peak_share);
  if (record.skipped) numbers.emplace_back("skipped", 1.0);
  add_traffic(numbers, record.traffic);
  add_slowest(numbers, record.seconds_of_ranks);
  if (record.context) add_context(numbers, *record.context);
  for (const auto& [name, value] : record.auxiliary) numbers.emplace_back(name, value);
  return numbers;
}

void add_held_out(NamedNumbers& numbers, const Evaluation& held_out) {
  numbers.emplace_back("valid_loss", held_out.nll);
  numbers.emplace_back("valid_perplexity", held_out.perplexity);
  numbers.emplace_back("valid_bits_per_byte", held_out.bits_per_byte);
}

}  // namespace

RunLog::RunLog(const RunConfig& config, int64_t first_step, int64_t held_out_rows, const Group& ranks)
    : sinks_(std::make_unique<Sinks>(config, first_step, held_out_rows, ranks)) {}
RunLog::~RunLog() = default;

void RunLog::step(const StepRecord& record, const std::optional<Evaluation>& held_out) {
  Sinks& sinks = *sinks_;
  sinks.remaining.saw_step(record.seconds);
  const double peak_share = sinks.peak.of(record.flops / record.seconds);
  NamedNumbers numbers = numbers_of(record, peak_share);
  if (held_out) add_held_out(numbers, *held_out);
  if (sinks.metrics) sinks.metrics->append(record.step, record.loss, numbers);
  if (sinks.tensorboard) {
    if (record.loss) sinks.tensorboard->scalar("loss", *record.loss, record.step);
    for (const auto& [name, value] : numbers) sinks.tensorboard->scalar(name, value, record.step);
    sinks.tensorboard->flush();
  }
  if (held_out)
    say(text("step ", record.step, ": held out ", held_out->bits_per_byte, " bits per byte, loss ",
             held_out->nll));
  const int64_t last = last_step(sinks.config);
  const bool wanted = record.step % sinks.config.metrics.log_freq == 0 || record.step == last;
  if (!sinks.terminal && !wanted) return;
  sinks.progress.update({.step = record.step,
                         .last_step = last,
                         .loss = record.loss,
                         .tokens_per_second = static_cast<double>(record.tokens) / record.seconds,
                         .peak_share = peak_share,
                         .gradient_norm = record.gradient_norm,
                         .learning_rate = record.learning_rate,
                         .memory_bytes = resident_bytes(),
                         .eta_seconds = sinks.remaining.after(record.step)});
}

void RunLog::evaluating(int64_t done, int64_t rows) {
  Sinks& sinks = *sinks_;
  working(sinks.evaluation.at(done, rows));
  if (done == rows) sinks.remaining.saw_evaluation(rows, sinks.evaluation.seconds());
}

void RunLog::sync() {
  if (sinks_->metrics) sinks_->metrics->sync();
}

void RunLog::sample(int64_t step, const std::string& sample) {
  sinks_->progress.finish();
  const std::string folder = sinks_->config.job.dump_folder + "/samples";
  if (sinks_->metrics) sinks_->metrics->expect_folder();
  std::error_code error;
  std::filesystem::create_directory(folder, error);  // a run folder that has vanished is not made again
  const std::string path = text(folder, "/step-", step, ".txt");
  std::ofstream file(path, std::ios::binary);
  file << sample;
  check<TrainingError>(file.flush().good(), path, ": cannot be written");
  if (sinks_->tensorboard) {
    sinks_->tensorboard->text("sample", sample, step);
    sinks_->tensorboard->flush();
  }
}

void RunLog::say(const std::string& line) { sinks_->progress.message(line); }
void RunLog::working(const std::string& line) { sinks_->progress.activity(line); }
void RunLog::finish() { sinks_->progress.finish(); }

}  // namespace longreach
