// The whole of one run: what a TOML file says. Sections and keys as in flame and torchtitan.
#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "checkpoints/formats/hugging_face_config.h"
#include "checkpoints/formats/hugging_face_family.h"
#include "core/config.h"
#include "data/loader.h"
#include "models/adapter.h"
#include "models/model_config.h"
#include "train/fault.h"
#include "train/optimizer.h"
#include "train/schedule.h"

namespace longreach {

struct JobConfig {
  std::string dump_folder = "exp/run";
  std::string description;
  std::string task = "pretrain";
  void fields(FieldVisitor& visit);
};

struct TrainingConfig {
  int64_t seed = 42;
  int64_t steps = 1000;
  int64_t stop_at = 0;
  int64_t seq_len = 1024;
  int64_t batch_size = 8;
  int64_t gradient_accumulation_steps = 1;
  int64_t global_batch_size = 0;
  bool varlen = true;
  double max_norm = 1.0;
  double z_loss = 0.0;
  int64_t loss_chunk_tokens = 1024;
  std::string mixed_precision_param = "float32";
  std::string nonfinite = "stop";
  int64_t max_bad_steps = 5;
  double auxiliary_weight = 1.0;
  bool deterministic = true;
  int64_t threads = 0;
  std::string matmul = "auto";
  void fields(FieldVisitor& visit);
};

struct ParallelConfig {
  std::string device = "cpu";
  int64_t data_parallel_replicate_degree = 1;
  int64_t data_parallel_shard_degree = -1;
  int64_t context_parallel_degree = 1;
  std::string context_parallel_load_balancer = "ptrr";
  std::string context_parallel_method = "fetch";
  int64_t zero_stage = 1;
  void fields(FieldVisitor& visit);
};

struct CommSection {
  int64_t init_timeout_seconds = 300;
  int64_t train_timeout_seconds = 100;
  bool check = false;
  void fields(FieldVisitor& visit);
};

struct CheckpointConfig {
  bool enable_checkpoint = true;
  std::string folder = "checkpoint";
  int64_t interval = 500;
  int64_t keep_latest_k = 2;
  int64_t load_step = -1;
  std::string async_mode = "disabled";
  std::string initial_load_path;
  void fields(FieldVisitor& visit);
};

struct DistillationConfig {
  double gate_loss_scale = 10.0;
  std::string gates;
  std::string teacher;
  double attention_weight = 0, hidden_weight = 0, logits_weight = 0, temperature = 1;
  std::string trainable = "converted";
  void fields(FieldVisitor& visit);
};

struct ValidationConfig {
  int64_t freq = 0;
  int64_t rows = 16;
  bool final = true;
  bool ngram = false;
  void fields(FieldVisitor& visit);
};

struct MetricsConfig {
  int64_t log_freq = 10;
  bool enable_tensorboard = true;
  std::string save_tb_folder = "tb";
  bool plot = true;
  void fields(FieldVisitor& visit);
};

struct SampleConfig {
  int64_t tokens = 256;
  std::string prompt = "\n";
  double temperature = 0.8;
  int64_t top_k = 0;
  double top_p = 0.95;
  void fields(FieldVisitor& visit);
};

struct ExportConfig {
  std::vector<std::string> format;
  std::string dtype = "float32";
  std::string family = kAnyFamily;
  void fields(FieldVisitor& visit);
};

struct RunConfig {
  JobConfig job;
  ModelConfig model{.read_sizes = read_hugging_face_config};
  TrainingConfig training;
  data::DataConfig data;
  OptimizerConfig optimizer;
  ScheduleConfig lr_scheduler;
  ParallelConfig parallel;
  CommSection comm;
  std::string activation_checkpoint = "none";
  CheckpointConfig checkpoint;
  DistillationConfig distillation;
  AdapterConfig adapter;
  ExportConfig exports;
  ValidationConfig validation;
  MetricsConfig metrics;
  SampleConfig sample;
  FaultConfig fault;
  void fields(FieldVisitor& visit);

  // What spans keys: throws ConfigError naming the key.
  void validate() const;
  // Model sizes that follow from others or from the tokenizer, and whether its mechanisms fit them. Throws
  // ConfigError that begins with `name`, the config's file.
  void resolve_model(int64_t tokenizer_vocab_size, const std::string& name);
  // Whether the formats of [export] can say the resolved model: what one of them, or export.family, does not
  // have is refused at the start of a run and not at its end. Throws ConfigError that begins with `name`.
  void expect_exportable(const std::string& name) const;
  std::string checkpoint_root() const;  // job.dump_folder / checkpoint.folder
};

// The config whose [model] and data.tokenizer stand where keys are not given, or nothing. It is asked before
// the keys of [model] are final.
using BaseOf = std::function<std::optional<RunConfig>(const RunConfig&)>;

// Reads a file and applies overrides ("section.key", "value"). Throws ConfigError.
RunConfig read_run_config(const std::string& path,
                          const std::vector<std::pair<std::string, std::string>>& overrides,
                          const BaseOf& inherited = nullptr);
RunConfig parse_run_config(const std::string& toml, const std::string& name);
// Of a model that is there already: what a run needs beside it (data.train) may be missing.
RunConfig parse_saved_config(const std::string& toml, const std::string& name);

}  // namespace longreach
