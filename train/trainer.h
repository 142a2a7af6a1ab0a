// One training run, read in one direction: loader -> model -> loss -> gradients -> optimizer -> log ->
// checkpoint.
#pragma once
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "checkpoints/checkpoint.h"
#include "checkpoints/retention.h"
#include "data/loader.h"
#include "data/prefetch.h"
#include "distributed/data_parallel.h"
#include "models/transformer.h"
#include "train/evaluate.h"
#include "train/fault.h"
#include "train/gradient_norm.h"
#include "train/model_input.h"
#include "train/optimizer.h"
#include "train/ranks.h"
#include "train/run_config.h"
#include "train/run_log.h"
#include "train/shared_save.h"
#include "train/step.h"
#include "train/teacher.h"

namespace longreach {

// Creates the run folder and proves that it can be written, before any time is spent. Throws ConfigError.
void prepare_run_folder(const std::string& folder);

enum class RunOutcome { kFinished, kStoppedAt, kInterrupted };

class Trainer {
 public:
  // config: parsed and resolved. Opens the run folder and resumes from its newest good checkpoint if there is
  // one. Throws UserError before anything is written when the folder, the checkpoint or the data do not fit.
  // All ranks make their trainers, and run them, at the same time; the first one alone writes.
  Trainer(const RunConfig& config, const data::Corpus& corpus, const Ranks& ranks = {});

  RunOutcome run();

  Transformer& model() { return *model_; }
  int64_t step() const { return step_; }
  std::string newest_checkpoint() const { return newest_checkpoint_; }
  // The newest evaluation on held-out text of this process; of the whole text after the last step.
  const std::optional<Evaluation>& held_out() const { return held_out_; }
  RunLog& log() { return *log_; }

 private:
  void resume_or_start();
  std::optional<CheckpointReader> open_newest(int64_t load_step, int64_t at_most);
  void restore(const CheckpointReader& checkpoint);
  // As above; then no later checkpoint or export is left under its name.
  void go_on_from(const CheckpointReader& checkpoint);
  StepRecord train_step(const StepData& data);
  bool distilling() const { return config_.job.task == "distill"; }
  // Updates the parameters, or leaves every bit and acts on training.nonfinite.
  bool apply(const StepRecord& record, const GradientNorm& gradients);
  void refuse_step(const std::string& what);
  void note_step_without_labels();
  void say_steps_without_labels();
  void roll_back();
  std::optional<Evaluation> held_out_after_step();
  void save();  // with checkpoint.async_mode, finish_save() is called by later steps
  void finish_save();
  int agree_on_stop();
  std::map<std::string, std::string> texts();
  Traffic taken_traffic();
  std::string state_json() const;
  bool due(int64_t interval) const { return interval > 0 && step_ % interval == 0; }

  RunConfig config_;
  data::Corpus corpus_;
  const Ranks ranks_;
  const StepPlan plan_;
  ContextPlan context_;
  data::TrainLoader train_loader_;
  data::ValidLoader valid_loader_;
  std::shared_ptr<Transformer> model_;
  std::shared_ptr<const Teacher> teacher_;  // null: none
  std::unique_ptr<DataParallel> parallel_;  // shares what the optimizer updates
  std::unique_ptr<AdamW> optimizer_;
  std::optional<DataParallel::Whole> trained_;  // after the last step all of the model is on every rank
  std::unique_ptr<RunLog> log_;
  std::unique_ptr<SharedSave> save_;  // the one in flight
  const std::string data_identity_;
  Retention retention_;
  LossOptions loss_options_;

  int64_t step_ = 0;                               // steps done
  int64_t steps_here_ = 0, unlabelled_steps_ = 0;  // of this process
  int64_t bad_steps_ = 0, last_bad_step_ = -1;     // in a row up to that one
  int64_t total_tokens_ = 0;
  double total_seconds_ = 0;
  int64_t saved_step_ = -1;       // or being saved
  std::set<int64_t> skip_steps_;  // rolled back from: not applied when they come again
  std::string newest_checkpoint_;
  std::optional<Evaluation> held_out_;
  Faults faults_;
  data::Prefetcher<StepData> steps_;  // by number of steps done before; last, so that it ends first
};

}  // namespace longreach
