// Every key of a run: its help text, what is allowed, and the checks that span keys.
#include "train/run_config.h"

#include <algorithm>

#include "checkpoints/formats/gguf/gguf_export.h"
#include "checkpoints/formats/hugging_face_export.h"
#include "core/naming.h"
#include "train/export.h"
#include "train/foreign_export.h"
#include "train/gates.h"

namespace longreach {

void JobConfig::fields(FieldVisitor& visit) {
  visit.field("dump_folder", dump_folder,
              {.help = "run folder: resolved config, metrics.jsonl, TensorBoard, checkpoints, samples"});
  visit.field("description", description, {.help = "free text, kept with the run"});
  visit.field(
      "task", task,
      {.help =
           "pretrain; finetune (starts from checkpoint.initial_load_path); distill (the same, all frozen but "
           "the gates of `seer` layers)",
       .allowed = one_of({"pretrain", "finetune", "distill"})});
}

void TrainingConfig::fields(FieldVisitor& visit) {
  visit.field("seed", seed,
              {.help = "seed of parameters and of the order of the data", .allowed = at_least(0)});
  visit.field("steps", steps, {.help = "optimizer steps of the whole schedule", .allowed = at_least(1)});
  visit.field("stop_at", stop_at,
              {.help = "checkpoint and leave after this step, the schedule unchanged; 0: run to the end",
               .allowed = at_least(0)});
  visit.field("seq_len", seq_len, {.help = "tokens a row", .allowed = at_least(2)});
  visit.field("batch_size", batch_size, {.help = "rows a micro-batch", .allowed = at_least(1)});
  visit.field(
      "gradient_accumulation_steps", gradient_accumulation_steps,
      {.help = "micro-batches a step and data rank; the loss is normalised by the tokens of all of them",
       .allowed = at_least(1)});
  visit.field("global_batch_size", global_batch_size,
              {.help = "rows a step over all ranks, whatever their number; 0: batch_size x "
                       "gradient_accumulation_steps x data ranks",
               .allowed = at_least(0)});
  visit.field("varlen", varlen,
              {.help = "pack documents that never see each other; false: plain windows of the stream"});
  visit.field(
      "max_norm", max_norm,
      {.help = "clip the global gradient norm to this; 0: no clipping", .allowed = real_between(0, 1e30)});
  visit.field("z_loss", z_loss,
              {.help = "weight of the mean squared log-partition (PaLM used 1e-4)",
               .allowed = real_between(0, 1e30)});
  visit.field("loss_chunk_tokens", loss_chunk_tokens,
              {.help = "tokens whose logits exist at once", .allowed = at_least(1)});
  visit.field("mixed_precision_param", mixed_precision_param,
              {.help = "dtype of matmuls and attention; master parameters stay float32",
               .allowed = one_of({"float32", "bfloat16"})});
  visit.field(
      "nonfinite", nonfinite,
      {.help = "on a NaN or infinite loss, gradient or update, parameters untouched: stop, skip the step, "
               "or rollback to the last checkpoint and skip it there",
       .allowed = one_of({"stop", "skip", "rollback"})});
  visit.field("max_bad_steps", max_bad_steps,
              {.help = "skip, rollback: so many of these steps in a row end the run with exit code 1",
               .allowed = at_least(1)});
  visit.field("auxiliary_weight", auxiliary_weight,
              {.help = "weight of the mechanisms' own losses", .allowed = real_between(0, 1e30)});
  visit.field("deterministic", deterministic, {.help = "refuse operators without a deterministic form"});
  visit.field("threads", threads, {.help = "intra-op threads; 0: every core", .allowed = between(0, 4096)});
  visit.field(
      "matmul", matmul,
      {.help = "library of float32 products: LibTorch's default (MKL), oneDNN, or auto: what the run has "
               "used so far, at first the faster on this CPU",
       .allowed = one_of({"auto", "default", "onednn"})});
}

void ParallelConfig::fields(FieldVisitor& visit) {
  visit.field("device", device,
              {.help = "where tensors live: cpu, or cuda: the current CUDA device, of several ranks one each",
               .allowed = one_of({"cpu", "cuda"})});
  const auto degree = [&](const char* name, int64_t& value, const char* help) {
    visit.field(name, value, {.help = help});
    if (value < 1 && value != -1) visit.reject(name, text("found ", value, ", expected 1 or more, or -1"));
  };
  degree("data_parallel_replicate_degree", data_parallel_replicate_degree,
         "data ranks that hold the whole model; -1, of one degree: what the others leave of WORLD_SIZE");
  degree("data_parallel_shard_degree", data_parallel_shard_degree,
         "data ranks that share the model's state, by zero_stage");
  degree("context_parallel_degree", context_parallel_degree, "ranks that share the rows of a micro-batch");
  visit.field(
      "context_parallel_load_balancer", context_parallel_load_balancer,
      {.help =
           "how a row is dealt out to them: ptrr (pieces by their cost), headtail (a piece from the front "
           "with one from the back), none (one piece each)",
       .allowed = one_of({"ptrr", "headtail", "none"})});
  visit.field("context_parallel_method", context_parallel_method,
              {.help = "what crosses between them: fetch (the keys, blocks or states that a rank's tokens "
                       "read), heads (all tokens of some heads; every layer needs a key head for each rank), "
                       "auto (layer by layer what plans fewer bytes, or heads among neighbours and fetch "
                       "between them)",
               .allowed = one_of({"fetch", "heads", "auto"})});
  visit.field("zero_stage", zero_stage,
              {.help = "what ranks of the shard degree share instead of each having all of it: 0 nothing; 1 "
                       "optimizer state; 2 gradients too, which are then summed after each micro-batch; 3 "
                       "parameters too, which are then gathered layer by layer, twice a micro-batch",
               .allowed = between(0, 3)});
}

void CommSection::fields(FieldVisitor& visit) {
  visit.field("init_timeout_seconds", init_timeout_seconds,
              {.help = "how long ranks wait for each other at the start", .allowed = between(1, 1'000'000)});
  visit.field("train_timeout_seconds", train_timeout_seconds,
              {.help = "how long one exchange may take before the ranks that do not come are given up",
               .allowed = between(1, 1'000'000)});
  visit.field(
      "check", check,
      {.help = "compare operation, label and sizes on all ranks before each exchange: a mismatch is one "
               "error on all of them"});
}

void CheckpointConfig::fields(FieldVisitor& visit) {
  visit.field("enable_checkpoint", enable_checkpoint, {.help = "write checkpoints"});
  visit.field("folder", folder, {.help = "under job.dump_folder"});
  visit.field("interval", interval,
              {.help = "steps between checkpoints; one more is written at the end", .allowed = at_least(1)});
  visit.field("keep_latest_k", keep_latest_k,
              {.help = "whole checkpoints kept; 0: all", .allowed = at_least(0)});
  visit.field(
      "async_mode", async_mode,
      {.help = "async: tensors are copied, and a thread writes them while training goes on; one save at "
               "a time",
       .allowed = one_of({"disabled", "async"})});
  visit.field("load_step", load_step,
              {.help = "step to resume from when the folder holds checkpoints, later ones are then set aside "
                       "(renamed); -1: the newest good one",
               .allowed = at_least(-1)});
  visit.field(
      "initial_load_path", initial_load_path,
      {.help = "checkpoint whose model starts a new run; keys of [model] that are not given come from it"});
}

void DistillationConfig::fields(FieldVisitor& visit) {
  visit.field("gate_loss_scale", gate_loss_scale,
              {.help = "factor of the gates' loss, which is summed over the layers (SeerAttention: 10)",
               .allowed = positive_real()});
  visit.field(
      "gates", gates,
      {.help = "gates to start from, whatever the task: a .pth or .safetensors file with the authors' "
               "names, or the folder of `export --format gates`"});
  visit.field(
      "teacher", teacher,
      {.help = "checkpoint or foreign model that is learnt from, by the weights below; empty: gates learn "
               "from their own layers"});
  visit.field(
      "attention_weight", attention_weight,
      {.help = "of the squared error of each layer's attention, alone, on what enters the teacher's layer",
       .allowed = real_between(0, 1e30)});
  visit.field("hidden_weight", hidden_weight,
              {.help = "of the relative squared error of the residual stream behind each layer",
               .allowed = real_between(0, 1e30)});
  visit.field("logits_weight", logits_weight,
              {.help = "of KL(teacher || student) of the next token, where there is a label",
               .allowed = real_between(0, 1e30)});
  visit.field("temperature", temperature,
              {.help = "both models' logits are divided by it, the divergence is multiplied by its square",
               .allowed = positive_real()});
  visit.field(
      "trainable", trainable,
      {.help = "with a teacher: attention of the converted layers (those that attend otherwise than the "
               "teacher's), of all layers (attention), or all parameters",
       .allowed = one_of({"converted", "attention", "all"})});
}

void ExportConfig::fields(FieldVisitor& visit) {
  visit.field("format", format,
              {.help = "written at the end under job.dump_folder/export: " + join(export_formats()) +
                       " (`longreach export --help`)"});
  visit.field("dtype", dtype,
              {.help = "of weights in whole models: " + join(foreign_formats()),
               .allowed = one_of({"float32", "bfloat16", "float16", "q8_0"})});
  visit.field("family", family,
              {.help = "of hf: a family's model_type, or auto: a class of transformers where there is one, "
                       "else longreach, which brings its code",
               .allowed = one_of(hugging_face_targets())});
}

void ValidationConfig::fields(FieldVisitor& visit) {
  visit.field("freq", freq,
              {.help = "steps between evaluations on held-out text; 0: never during training",
               .allowed = at_least(0)});
  visit.field("rows", rows,
              {.help = "held-out rows an evaluation reads, spread evenly; 0: all", .allowed = at_least(0)});
  visit.field("final", final, {.help = "evaluate on the whole held-out text at the end"});
  visit.field(
      "ngram", ngram,
      {.help = "print byte n-gram baselines (orders 2 and 3) of the same split beside the final figure"});
}

void MetricsConfig::fields(FieldVisitor& visit) {
  visit.field(
      "log_freq", log_freq,
      {.help = "steps between progress lines when the output is no terminal", .allowed = at_least(1)});
  visit.field("enable_tensorboard", enable_tensorboard, {.help = "write TensorBoard event files"});
  visit.field("save_tb_folder", save_tb_folder, {.help = "under job.dump_folder"});
  visit.field("plot", plot, {.help = "draw loss.png at the end (needs gnuplot)"});
}

void SampleConfig::fields(FieldVisitor& visit) {
  visit.field("tokens", tokens,
              {.help = "tokens of the text generated at the end; 0: none", .allowed = at_least(0)});
  visit.field("prompt", prompt, {.help = "what it starts from"});
  visit.field("temperature", temperature, {.help = "0: greedy", .allowed = real_between(0, 100)});
  visit.field("top_k", top_k, {.help = "0: all tokens", .allowed = at_least(0)});
  visit.field("top_p", top_p,
              {.help = "nucleus of the distribution that is drawn from", .allowed = RealRange{0, 1, true}});
}

void RunConfig::fields(FieldVisitor& visit) {
  visit.section("job", "What this run is and where it lies.", fields_of(job));
  visit.section("model", "Sizes (Hugging Face's names) and [[model.attention]].", fields_of(model));
  visit.section("training", "Steps, batches, precision.", fields_of(training));
  visit.section("data", "Text and tokenizer.", fields_of(data));
  visit.section("optimizer", "AdamW with decoupled decay.", fields_of(optimizer));
  visit.section("lr_scheduler", "Learning rate over the steps.", fields_of(lr_scheduler));
  visit.section("parallel", "Ranks and device.", fields_of(parallel));
  visit.section("comm", "Exchanges between ranks.", fields_of(comm));
  visit.section("activation_checkpoint", "Memory against recomputation.", [this](FieldVisitor& inside) {
    inside.field("mode", activation_checkpoint,
                 {.help = "none, or full: recompute each layer in the backward pass",
                  .allowed = one_of({"none", "full"})});
  });
  visit.section("checkpoint", "Saving and resuming.", fields_of(checkpoint));
  visit.section("distillation", "Teaching gates, or learning from a teacher (job.task = \"distill\").",
                fields_of(distillation));
  visit.section("adapter", "Training a few parameters beside a frozen model.", fields_of(adapter));
  visit.section("export", "The trained model for other programs.", fields_of(exports));
  visit.section("validation", "Held-out text.", fields_of(validation));
  visit.section("metrics", "What is logged where.", fields_of(metrics));
  visit.section("sample", "Text generated at the end.", fields_of(sample));
  visit.section("fault", "What goes wrong on purpose, for tests.", fields_of(fault));
}

namespace {

bool is_met(Need need, const RunConfig& config) {
  switch (need) {
    case Need::cuda:
      return config.parallel.device == "cuda";
    case Need::bfloat16:
      return config.training.mixed_precision_param == "bfloat16";
    case Need::whole_rows:
      return !config.training.varlen;
    case Need::any_order:
      return !config.training.deterministic;
  }
  return true;
}

const char* key_of(Need need) {
  switch (need) {
    case Need::cuda:
      return "parallel.device = \"cuda\"";
    case Need::bfloat16:
      return "training.mixed_precision_param = \"bfloat16\"";
    case Need::whole_rows:
      return "training.varlen = false: it takes no packed documents";
    case Need::any_order:
      return "training.deterministic = false: its backward pass is not deterministic";
  }
  return "";
}

// What a mechanism asks of the rest of a run; said before anything is read or made.
void check_requirements(const RunConfig& config) {
  for (const AttentionEntry& entry : config.model.attention) {
    const auto requirement = requirement_of(entry.config);
    if (!requirement) continue;
    for (const Need need : requirement->needs)
      check<ConfigError>(is_met(need, config), "model.attention.", requirement->option, " needs ",
                         key_of(need), "; ", requirement->way_out);
  }
}

// kind = "A" with OPTION, of each kind whose gate can be taught.
std::string ways_to_teach() {
  std::vector<std::string> ways;
  for (const AttentionConfig& config : all_attention_configs())
    if (const auto gate = gate_of(config))
      ways.push_back(text("kind = \"", kind_of(config), "\" with ", gate->teaching));
  return join(ways, " or ");
}

bool is_exported_as(const RunConfig& config, const std::string& format) {
  const std::vector<std::string>& formats = config.exports.format;
  return std::find(formats.begin(), formats.end(), format) != formats.end();
}

// Said at the start of a run, not at its end.
void check_exports(const RunConfig& config) {
  const std::vector<std::string>& known = export_formats();
  for (const std::string& format : config.exports.format) {
    check<ConfigError>(std::find(known.begin(), known.end(), format) != known.end(), "export.format: `",
                       format, "` is none of ", join(known), did_you_mean(format, known));
    check<ConfigError>(format != "gates" || has_gates(config.model),
                       "export.format: `gates` needs a [[model.attention]] table with ", kinds_with_gates());
    check<ConfigError>((format != "peft" && format != "merged") || config.adapter.present(),
                       "export.format: `", format, "` needs adapter.type = \"lora\"");
    if (is_foreign_format(format))
      prefixing<ConfigError>(text("export.format: `", format, "`: "),
                             [&] { expect_foreign_dtype(format, config.exports.dtype); });
    check<ConfigError>(config.checkpoint.enable_checkpoint,
                       "export.format needs checkpoint.enable_checkpoint = true");
  }
  check<ConfigError>(config.exports.family == kAnyFamily || is_exported_as(config, "hf"),
                     "export.family = \"", config.exports.family, "\" goes with export.format = [\"hf\"]");
}

// One of both: gates that learn from their layers, or a teacher and what is learnt of it.
void check_distillation(const RunConfig& config) {
  const DistillationConfig& distillation = config.distillation;
  const bool distills = config.job.task == "distill", taught = !distillation.teacher.empty();
  const bool walks = distillation.hidden_weight > 0 || distillation.logits_weight > 0,
             weighs = walks || distillation.attention_weight > 0;
  check<ConfigError>(!taught || distills, "distillation.teacher needs job.task = \"distill\", found \"",
                     config.job.task, "\"");
  check<ConfigError>(taught == weighs,
                     taught ? "distillation.teacher needs" : "without distillation.teacher nothing has",
                     " a distillation.attention_weight, hidden_weight or logits_weight above 0");
  const bool gates = std::any_of(config.model.attention.begin(), config.model.attention.end(),
                                 [](const auto& entry) { return teaches_gate(entry.config); });
  check<ConfigError>(!distills || taught || gates,
                     "job.task = \"distill\": no distillation.teacher and no [[model.attention]] table with ",
                     ways_to_teach());
  check<ConfigError>(!taught || !gates, "distillation.teacher and a [[model.attention]] table with ",
                     ways_to_teach(), " exclude each other");
  check<ConfigError>(
      distillation.trainable != "all" || walks || !taught,
      "distillation.trainable = \"all\" needs hidden_weight or logits_weight above 0: attention_weight "
      "trains attention alone");
}

}  // namespace

void RunConfig::validate() const {
  check_requirements(*this);
  check_exports(*this);
  parse_faults(fault.inject);  // throws
  check<ConfigError>(
      job.task == "pretrain" || !checkpoint.initial_load_path.empty() || !distillation.teacher.empty(),
      "checkpoint.initial_load_path: is required by job.task = \"", job.task, "\"");
  check<ConfigError>(job.task != "distill" || !adapter.present(), "adapter.type = \"", adapter.type,
                     "\": job.task = \"distill\" trains no adapters; expected \"none\", "
                     "or job.task = \"finetune\" or \"pretrain\"");
  check<ConfigError>(adapter.present() || adapter.base_dtype == "float32", "adapter.base_dtype = \"",
                     adapter.base_dtype,
                     "\" is for weights that do not train, and without adapters "
                     "(adapter.type = \"none\") all do; expected \"float32\", or adapter.type = \"lora\"");
  check_distillation(*this);
  check<ConfigError>(!data.train.empty(), "data.train: is required: token stores, text files or folders");
  check<ConfigError>(training.seq_len <= model.max_position_embeddings,
                     "training.seq_len = ", training.seq_len,
                     " is longer than model.max_position_embeddings = ", model.max_position_embeddings);
  check<ConfigError>(training.stop_at <= training.steps, "training.stop_at = ", training.stop_at,
                     " lies beyond training.steps = ", training.steps);
  if (job.task == "pretrain")
    expect_ability(model.attention, Ability::pretraining, "job.task = \"pretrain\"");
  if (parallel.context_parallel_degree != 1)
    expect_ability(model.attention, Ability::context_parallel, "parallel.context_parallel_degree");
  if (training.varlen) expect_ability(model.attention, Ability::packed_documents, "training.varlen = true");
  if (training.mixed_precision_param == "bfloat16")
    expect_ability(model.attention, Ability::bfloat16, "training.mixed_precision_param = \"bfloat16\"");
  if (activation_checkpoint != "none")
    expect_ability(model.attention, Ability::activation_checkpoint, "activation_checkpoint.mode");
  check<ConfigError>(training.nonfinite != "rollback" || checkpoint.enable_checkpoint,
                     "training.nonfinite = \"rollback\" needs checkpoint.enable_checkpoint = true");
}

std::string RunConfig::checkpoint_root() const { return job.dump_folder + "/" + checkpoint.folder; }

namespace {

constexpr int64_t kMostLayers = 10000;

RunConfig read(const ConfigDocument& document, const std::string& name, const BaseOf& inherited = nullptr) {
  RunConfig config;
  if (inherited) {
    // Tables of attention may name layers that only the inherited number of layers has.
    config.model.num_hidden_layers = kMostLayers;
    document.read(fields_of(config));
    const bool own_attention = !config.model.attention.empty();
    const auto base = inherited(config);
    config = RunConfig();
    if (base) {
      config.model = base->model;
      config.data.tokenizer = base->data.tokenizer;
    }
    if (own_attention) config.model.attention.clear();
  }
  document.read(fields_of(config));
  naming<ConfigError>(name, [&] { config.validate(); });
  return config;
}

}  // namespace

void RunConfig::resolve_model(int64_t tokenizer_vocab_size, const std::string& name) {
  naming<ConfigError>(name, [&] { model.resolve(tokenizer_vocab_size); });
}

void RunConfig::expect_exportable(const std::string& name) const {
  naming<ConfigError>(name, [&] {
    if (is_exported_as(*this, "hf"))
      prefixing<ConfigError>("export.format: `hf`: ", [&] { expect_hugging_face(model, exports.family); });
    if (is_exported_as(*this, "gguf"))
      prefixing<ConfigError>("export.format: `gguf`: ", [&] { gguf_architecture(model); });
  });
}

RunConfig read_run_config(const std::string& path,
                          const std::vector<std::pair<std::string, std::string>>& overrides,
                          const BaseOf& inherited) {
  ConfigDocument document = ConfigDocument::from_file(path);
  for (const auto& [key, value] : overrides) document.override_key(key, value);
  return read(document, path, inherited);
}

RunConfig parse_saved_config(const std::string& toml, const std::string& name) {
  RunConfig config;
  ConfigDocument::from_text(toml, name).read(fields_of(config));
  return config;
}

RunConfig parse_run_config(const std::string& toml, const std::string& name) {
  return read(ConfigDocument::from_text(toml, name), name);
}

}  // namespace longreach
