#include "train/trainer.h"

#include <ATen/Context.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <limits>
#include <nlohmann/json.hpp>

#include "checkpoints/folders.h"
#include "core/verbose.h"
#include "layers/basic/module.h"
#include "layers/ops/matmul/matmul.h"
#include "models/weight_dtype.h"
#include "train/base_model.h"
#include "train/gates.h"
#include "train/labels.h"
#include "train/matmul_choice.h"
#include "train/rank_checkpoint.h"
#include "train/resume.h"
#include "train/run_size.h"
#include "train/saved_model.h"
#include "train/signals.h"
#include "train/warn.h"

namespace longreach {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

data::LoaderOptions loader_options(const RunConfig& config) {
  return {.seq_len = config.training.seq_len,
          .seed = static_cast<uint64_t>(config.training.seed),
          .varlen = config.training.varlen};
}

void write_text(const std::string& path, const std::string& contents) {
  std::ofstream file(path + ".tmp", std::ios::binary);
  file << contents;
  file.close();
  check<ConfigError>(file.good(), path, ": cannot be written");
  fs::rename(path + ".tmp", path);
}

// "train/0/tokens: 52319", one number or text a line
std::string lines_of(const nlohmann::ordered_json& identity) {
  std::string lines;
  const auto flat = identity.flatten();
  for (const auto& [pointer, value] : flat.items()) lines += pointer.substr(1) + ": " + value.dump() + "\n";
  return lines;
}

}  // namespace

void prepare_run_folder(const std::string& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  check<ConfigError>(!error, "job.dump_folder: ", folder, ": ", error.message());
  const std::string probe = folder + "/.write-probe";
  const bool writable = static_cast<bool>(std::ofstream(probe) << "x" << std::flush);
  fs::remove(probe, error);
  check<ConfigError>(writable, "job.dump_folder: ", folder, ": cannot be written");
}

Trainer::Trainer(const RunConfig& config, const data::Corpus& corpus, const Ranks& ranks)
    : config_(config),
      corpus_(corpus),
      ranks_(ranks),
      plan_(step_plan(config.training, ranks.mesh.data)),
      train_loader_(corpus, loader_options(config)),
      valid_loader_(corpus, loader_options(config)),
      data_identity_(data_identity(config, corpus)),
      retention_(config.checkpoint_root(), config.checkpoint.keep_latest_k),
      faults_(config.fault, ranks.environment),
      steps_([this](int64_t step) {
        return load_step(train_loader_, config_.training, plan_, context_, step);
      }) {
  at::globalContext().setDeterministicAlgorithms(config_.training.deterministic, /*warn_only=*/false);
  // Parameters that will be overwritten by NaN-filled memory would hide a missing initialisation; ours are
  // drawn.
  at::globalContext().setDeterministicFillUninitializedMemory(false);
  choose_matmul(config_.training.matmul, "", warn);
  loss_options_ = {.z_loss = config_.training.z_loss,
                   .chunk_tokens = config_.training.loss_chunk_tokens,
                   .activation_checkpoint = config_.activation_checkpoint,
                   .autocast_bf16 = config_.training.mixed_precision_param == "bfloat16"};
  model_ = std::make_shared<Transformer>(config_.model, static_cast<uint64_t>(config_.training.seed));
  context_ = context_plan(config_, model_, ranks_.mesh);
  add_adapters(*model_, config_.adapter, static_cast<uint64_t>(config_.training.seed));
  if (config_.adapter.base_dtype == "bfloat16") store_frozen_weights_as(*model_, at::kBFloat16);
  if (config_.parallel.device == "cuda") model_->to(at::Device(at::kCUDA));
  teacher_ = load_teacher(config_);
  if (teacher_ && config_.parallel.device == "cuda") teacher_->model->to(at::Device(at::kCUDA));
  if (distilling())
    freeze_for_distillation(*model_, config_, teacher_ ? teacher_->converted : std::vector<bool>());
  parallel_ = std::make_unique<DataParallel>(*model_, model_->units(), ranks_.mesh,
                                             static_cast<int>(config_.parallel.zero_stage));
  model_->set_unit_guard(parallel_.get());
  optimizer_ = std::make_unique<AdamW>(parallel_->runs(), undecayed_parameters(*model_), config_.optimizer,
                                       [this](double largest) { return parallel_->largest(largest); });
  expect_same_on_all(ranks_, lines_of(nlohmann::ordered_json::parse(data_identity_)), "their data");
  resume_or_start();
  if (ranks_.first()) write_text(config_.job.dump_folder + "/config.toml", to_toml(fields_of(config_)));
  log_ = std::make_unique<RunLog>(config_, step_, valid_loader_.num_rows(), ranks_.world());
}

std::optional<CheckpointReader> Trainer::open_newest(int64_t load_step, int64_t at_most) {
  return open_latest(config_.checkpoint_root(), load_step, warn, at_most, true, peers_of(ranks_.world()));
}

void Trainer::resume_or_start() {
  const auto found = open_newest(config_.checkpoint.load_step, std::numeric_limits<int64_t>::max());
  if (found) {
    compare_with_checkpoint(*found, config_, *corpus_.tokenizer, data_identity_);
    go_on_from(*found);
    std::cout << "resuming " << config_.job.dump_folder << " after step " << step_ << std::endl;
  }
  if (step_ > 0) return;
  const DataParallel::Whole here(*parallel_);
  if (!found && !config_.checkpoint.initial_load_path.empty())
    load_base_model(*model_, config_, *corpus_.tokenizer, teacher_.get());
  if (!config_.distillation.gates.empty()) load_gates(*model_, config_.distillation.gates);
  parallel_->take_shares();
}

void Trainer::go_on_from(const CheckpointReader& checkpoint) {
  restore(checkpoint);
  retention_.resumed_from(step_);
  if (!ranks_.first()) return;
  for (const std::string& root : {config_.checkpoint_root(), config_.job.dump_folder + "/export"})
    for (const auto& [path, name] : set_aside_later(root, step_))
      std::cout << "set aside  " << path << ": it is later than step " << step_ << "; it is now " << name
                << std::endl;
}

void Trainer::restore(const CheckpointReader& checkpoint) {
  on_every_rank(ranks_.world(), [&] { read_checkpoint(checkpoint, *model_, *parallel_, *optimizer_); });
  const auto state = run_state(checkpoint);
  step_ = saved_step_ = checkpoint.step();
  newest_checkpoint_ = checkpoint.path();
  total_tokens_ = state["total_tokens"].get<int64_t>();
  total_seconds_ = state.value("total_seconds", 0.0);
  choose_matmul(config_.training.matmul, state.value("matmul", std::string(name_of(MatmulLibrary::kDefault))),
                warn);
  // Steps noted by this process and not yet in the file (a rollback) stay noted.
  for (const auto& step : state["skip_steps"]) skip_steps_.insert(step.get<int64_t>());
}

StepRecord Trainer::train_step(const StepData& data) {
  StepRecord record{.tokens = data.tokens};
  record.learning_rate =
      config_.optimizer.lr * learning_rate_factor(config_.lr_scheduler, step_ + 1, config_.training.steps);
  if (data.labelled == 0 && !distilling()) {
    note_step_without_labels();
    return record;
  }
  parallel_->begin_step();
  StepLosses losses =
      backward_of_step(*model_, *parallel_, data, step_, config_, loss_options_, ranks_.mesh, teacher_.get());
  parallel_->finish();
  record.loss = losses.loss;
  record.auxiliary = std::move(losses.auxiliary);
  record.seconds_of_ranks = std::move(losses.seconds);
  record.context = losses.context;
  const GradientNorm gradients = gradient_norm(*parallel_, ranks_.world());
  record.gradient_norm = gradients.norm;
  record.skipped = skip_steps_.count(step_ + 1) > 0 || !apply(record, gradients);
  return record;
}

// Nothing is learnt, so nothing is forgotten either: no decay, no moment moves.
void Trainer::note_step_without_labels() {
  if (unlabelled_steps_++ > 0) return;
  warn(text("step ", step_ + 1, ": no token of its rows carries a label, and nothing is trained by it (",
            where_labels_come_from(corpus_, config_.training.seq_len),
            "); how many such steps there are is said at the end"));
}

bool Trainer::apply(const StepRecord& record, const GradientNorm& gradients) {
  const bool finite = std::isfinite(*record.loss) && std::isfinite(gradients.norm);
  if (finite && optimizer_->step(record.learning_rate, clip_gradients(parallel_->runs(), gradients.norm,
                                                                      config_.training.max_norm))) {
    parallel_->publish();
    return true;
  }
  refuse_step(
      text("step ", step_ + 1, ": loss ", *record.loss, ", gradient norm ", gradients.norm,
           gradients.first_nonfinite.empty() ? "" : ", first in " + gradients.first_nonfinite,
           finite ? text("; the update at learning rate ", record.learning_rate, " is not finite") : "",
           "; parameters are untouched"));
  return false;
}

void Trainer::refuse_step(const std::string& what) {
  const TrainingConfig& training = config_.training;
  bad_steps_ = last_bad_step_ == step_ ? bad_steps_ + 1 : 1;
  last_bad_step_ = step_ + 1;
  const bool too_many = bad_steps_ >= training.max_bad_steps;
  if (training.nonfinite == "stop" || too_many) {
    if (saved_step_ != step_) save();
    finish_save();
    throw TrainingError(training.nonfinite == "stop"
                            ? text(what, " (training.nonfinite = \"stop\")")
                            : text(what, "; it is number ", bad_steps_,
                                   " in a row (training.max_bad_steps = ", training.max_bad_steps, ")"));
  }
  warn(what);
  if (training.nonfinite == "rollback") skip_steps_.insert(step_ + 1);
}

// Back to the last good checkpoint; the step that failed is skipped when it comes again.
void Trainer::roll_back() {
  finish_save();
  const auto found = open_newest(-1, step_);
  check<TrainingError>(found.has_value(), "step ", step_ + 1,
                       " is not finite and there is no checkpoint to roll back to");
  go_on_from(*found);
  log_ = nullptr;  // closes the files before their tail is dropped
  log_ = std::make_unique<RunLog>(config_, step_, valid_loader_.num_rows(), ranks_.world());
  log_->say(text("rolled back to step ", step_));
}

RunOutcome Trainer::run() {
  const int64_t last = config_.training.stop_at > 0 ? config_.training.stop_at : config_.training.steps;
  if (config_.training.nonfinite == "rollback" && saved_step_ < 0) save();
  while (step_ < last && agree_on_stop() == 0) {
    const auto start = Clock::now();
    const bool nan_loss = !faults_.none() && faults_.strike(step_ + 1);
    StepData data = steps_.get(step_);
    data.nan_loss = nan_loss;
    const double waited = data.seconds = seconds_since(start);
    add_other_ranks(data, ranks_.mesh.data);
    const bool known_bad = skip_steps_.count(step_ + 1) > 0;
    StepRecord record = train_step(data);
    if (record.skipped && config_.training.nonfinite == "rollback" && !known_bad) {
      roll_back();
      continue;
    }
    ++steps_here_;
    record.step = ++step_;
    record.total_tokens = total_tokens_ += record.tokens;
    record.data_wait_seconds = waited;
    record.flops = training_flops_per_token(config_, *model_, teacher_ ? teacher_->model.get() : nullptr) *
                   static_cast<double>(record.tokens);
    record.traffic = taken_traffic();
    record.seconds = seconds_since(start);
    record.total_seconds = total_seconds_ += record.seconds;
    log_->step(record, held_out_after_step());
    if (due(config_.checkpoint.interval)) save();
  }
  if (saved_step_ != step_) save();
  finish_save();
  say_steps_without_labels();
  trained_.emplace(*parallel_);
  log_->finish();
  if (stop_requested()) return RunOutcome::kInterrupted;
  return step_ >= config_.training.steps ? RunOutcome::kFinished : RunOutcome::kStoppedAt;
}

void Trainer::say_steps_without_labels() {
  if (unlabelled_steps_ == 0) return;
  check<TrainingError>(
      unlabelled_steps_ < config_.training.steps, "none of the ", unlabelled_steps_,
      " steps had a label, nothing was trained: ", where_labels_come_from(corpus_, config_.training.seq_len));
  log_->say(text(unlabelled_steps_, " of ", steps_here_, " steps had no label and trained nothing"));
}

std::optional<Evaluation> Trainer::held_out_after_step() {
  const bool last = config_.validation.final && step_ == config_.training.steps;
  if (!last && !due(config_.validation.freq)) return std::nullopt;
  const Stage stage(text("evaluation after step ", step_));
  const DataParallel::Whole here(*parallel_);  // ranks may evaluate unequal numbers of batches
  model_->eval();
  // Who asks the run to stop waits for its checkpoint, not for these figures; the final ones would not come
  // again.
  bool whole = true;
  const Evaluation read = evaluate(
      *model_, valid_loader_, last ? 0 : config_.validation.rows, config_.training.batch_size, loss_options_,
      [&](int64_t done, int64_t rows) {
        log_->evaluating(done, rows);
        whole = last || done == rows || !stop_requested();
        return whole;
      },
      ranks_.mesh, context_);
  model_->train();
  if (largest_over(ranks_.world(), whole ? 0 : 1, "evaluation") != 0) return std::nullopt;
  if (read.tokens == 0) {
    warn(text("evaluation after step ", step_, ": no token of the held-out rows carries a label"));
    return std::nullopt;
  }
  held_out_ = read;
  return held_out_;
}

std::string Trainer::state_json() const {
  nlohmann::ordered_json state;
  state["step"] = step_;
  state["total_tokens"] = total_tokens_;
  state["total_seconds"] = total_seconds_;
  state["skip_steps"] = skip_steps_;
  state["data"] = nlohmann::ordered_json::parse(data_identity_);
  state["matmul"] = name_of(matmul_library());
  state["tokenizer"] = corpus_.tokenizer->fingerprint();
  return state.dump(2) + "\n";
}

namespace {

// The folders between the run's and the checkpoints' are made one by one: a run folder that was removed or
// renamed since the last look is not made again, and is what the error names.
void make_folders_above_checkpoints(const RunConfig& config) {
  fs::path folder = config.job.dump_folder;
  for (const fs::path& part : fs::path(config.checkpoint.folder).parent_path()) {
    std::error_code error;
    fs::create_directory(folder /= part, error);
    check<CheckpointError>(!error, folder.string(), ": cannot be created: ", error.message());
  }
}

// When a save fails since the run's own files are gone, that is what is said.
void saying_what_is_lost(RunLog& log, const std::function<void()>& save) {
  try {
    save();
  } catch (const CheckpointError&) {
    log.sync();
    throw;
  }
}

}  // namespace

Traffic Trainer::taken_traffic() {
  Traffic all = take_traffic(ranks_.mesh);
  add(all, parallel_->take_traffic());
  return all;
}

std::map<std::string, std::string> Trainer::texts() {
  auto texts = tokenizer_texts(config_.data.tokenizer);
  texts["state.json"] = state_json();
  texts["config.toml"] = to_toml(fields_of(config_));
  return texts;
}

void Trainer::save() {
  if (!config_.checkpoint.enable_checkpoint) return;
  finish_save();
  const Stage stage(text("checkpoint of step ", step_));
  const bool beside = config_.checkpoint.async_mode == "async";
  saying_what_is_lost(*log_, [&] {
    std::map<std::string, std::string> files;
    on_first_rank(ranks_.world(), [&] {
      log_->sync();
      make_folders_above_checkpoints(config_);
      files = texts();
    });
    save_ = std::make_unique<SharedSave>(ranks_.world(), config_.checkpoint_root(), step_,
                                         saved_part(*model_, *parallel_, *optimizer_, ranks_.mesh),
                                         std::move(files), faults_.write_point(step_),
                                         beside ? SharedSave::Mode::kBeside : SharedSave::Mode::kWait);
  });
  saved_step_ = step_;
  if (!beside) finish_save();
}

void Trainer::finish_save() {
  const std::unique_ptr<SharedSave> save = std::move(save_);
  if (!save) return;
  saying_what_is_lost(*log_, [&] { newest_checkpoint_ = save->publish(); });
  on_first_rank(ranks_.world(), [&] { retention_.saved(save->step(), save->point()); });
}

int Trainer::agree_on_stop() {
  const StepAgreement agreement = agree_on_step(ranks_, save_ && !save_->written());
  if (!agreement.saving) finish_save();
  return agreement.signal;
}

}  // namespace longreach
