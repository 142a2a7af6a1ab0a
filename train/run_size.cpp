#include "train/run_size.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <iomanip>

#include "layers/basic/initial_values.h"
#include "models/weight_dtype.h"
#include "train/rank_size.h"
#include "train/teacher.h"

namespace longreach {
namespace {

constexpr double kFloat = 4, kGiB = 1024.0 * 1024.0 * 1024.0;

double real(int64_t value) { return static_cast<double>(value); }

// Bytes that one layer keeps for its backward pass, a token: both norms' inputs and outputs, q, k, v and o
// with their statistics, and the feed-forward block's three products. Mechanisms differ in the attention part
// by less than it is.
double layer_bytes_per_token(const ModelConfig& model, double element) {
  const double width = real(model.hidden_size), heads = real(model.num_attention_heads),
               size = real(model.head_dim);
  const double attention = 2 * (heads + real(model.num_key_value_heads)) * size * element + heads * kFloat;
  return width * (2 * kFloat + 2 * element) + attention + 3 * real(model.intermediate_size) * element;
}

// Of keys and values that other ranks own, as they come and in their order, and twice their gradients, in
// float32: dense attention takes those of the row, some heads at a time (PieceKeys::streams).
double fetched_bytes(const RunConfig& config, int64_t ranks, double element) {
  const ModelConfig& model = config.model;
  if (ranks == 1) return 0;
  const double heads = real(model.num_key_value_heads), streams = std::min(4 * real(ranks), heads);
  return real(config.training.batch_size) * real(config.training.seq_len) * 2 * heads / streams *
         real(model.head_dim) * (2 * element + 2 * kFloat);
}

// Of the output layer in the loss: its gradient, or where it is frozen the copy that logits are made of.
double bytes_of_head(const at::Tensor& weight, bool narrow) {
  const auto elements = real(weight.numel()), element = narrow ? 2.0 : kFloat;
  if (weight.requires_grad()) return kFloat * elements;
  return real(weight.element_size()) == element ? 0 : element * elements;
}

// Sum over adapters of their ranks: what stands between A and B, a token.
double adapter_ranks(const Transformer& model) {
  double ranks = 0;
  for (const auto& item : model.named_parameters())
    if (item.key().find(".lora_A.") != std::string::npos) ranks += real(item.value().size(0));
  return ranks;
}

void add_activations(const RunConfig& config, const ParallelDegrees& degrees, const Transformer& shapes,
                     const RankState& state, RunSize& size) {
  const ModelConfig& model = config.model;
  const bool narrow = config.training.mixed_precision_param == "bfloat16",
             recomputed = config.activation_checkpoint == "full";
  const double tokens =
                   real(config.training.batch_size) * real(config.training.seq_len) / real(degrees.context),
               element = narrow ? 2 : kFloat, layers = real(model.num_hidden_layers),
               stream = tokens * real(model.hidden_size) *
                        (narrow && model.residual_dtype == "bfloat16" ? 2 : kFloat),
               layer = tokens *
                       (layer_bytes_per_token(model, element) + adapter_ranks(shapes) / layers * element),
               copies = narrow ? state.trained / 2 : 0;  // in bfloat16, of what trains
  const double kept = recomputed ? layers * stream + copies / layers : layers * layer + copies;
  // Of the loss: gradients of hidden states and output layer, then logits of a chunk and their gradient.
  const double vocab = real(model.vocab_size),
               begun = 2 * stream + bytes_of_head(shapes.output_weight(), narrow),
               logits = 2 * std::min(tokens, real(config.training.loss_chunk_tokens)) * vocab * kFloat,
               fetched = fetched_bytes(config, degrees.context, element);
  const double backward = fetched + 2 * tokens * real(model.intermediate_size) * element;  // of a layer
  size.least_activations = layers * stream;
  size.activations = kept + begun + std::max({logits, backward + (recomputed ? layer : 0), state.in_flight});
  size.last_layer = state.in_flight + layer + backward + copies / layers;
}

void add_state(const RankState& state, RunSize& size) {
  size.weights = state.weights;
  size.gradients = state.gradients;
  size.moments = state.moments;
  size.gathered = state.gathered;
  size.sent = state.sent;
}

std::string gib(double bytes) {
  std::ostringstream out;
  out << std::fixed << std::setprecision(bytes < kGiB ? 3 : 1) << bytes / kGiB << " GiB";
  return out.str();
}

// "1.23 TFLOPs"
std::string flops(double count) {
  constexpr const char* kUnits[] = {"", "K", "M", "G", "T", "P", "E", "Z"};
  size_t unit = 0;
  for (; count >= 1000 && unit + 1 < std::size(kUnits); ++unit) count /= 1000;
  std::ostringstream out;
  out << std::fixed << std::setprecision(2) << count << " " << kUnits[unit] << "FLOPs";
  return out.str();
}

}  // namespace

std::shared_ptr<Transformer> model_of_shapes(const RunConfig& config) {
  const WithoutInitialValues shapes(WithoutInitialValues::Form::shapes);
  const auto seed = static_cast<uint64_t>(config.training.seed);
  try {
    auto model = std::make_shared<Transformer>(config.model, seed);
    add_adapters(*model, config.adapter, seed);
    if (config.adapter.base_dtype == "bfloat16") store_frozen_weights_as(*model, at::kBFloat16);
    return model;
  } catch (const c10::Error&) {  // a shape whose bytes are no number
    throw ConfigError(text("model.hidden_size = ", config.model.hidden_size, ", model.intermediate_size = ",
                           config.model.intermediate_size, ", model.vocab_size = ", config.model.vocab_size,
                           ": a parameter of that size cannot be addressed"));
  }
}

double training_flops_per_token(const RunConfig& config, const Transformer& model,
                                const Transformer* teacher) {
  const int64_t seq_len = config.training.seq_len;
  double flops = model.flops_per_token(seq_len);
  if (teacher != nullptr) {
    const DistillationConfig& learnt = config.distillation;
    if (learnt.hidden_weight == 0 && learnt.logits_weight == 0) flops = 0;  // the student's layers do not run
    if (learnt.trainable != "all") flops *= 2.0 / 3.0;
    if (learnt.attention_weight > 0) flops += 3.0 * model.attention_flops_per_token(seq_len);
    return flops + teacher->flops_per_token(seq_len) / 3.0;
  }
  if (config.job.task == "distill") flops /= 3.0;    // the frozen model runs forward only
  if (config.adapter.present()) flops *= 2.0 / 3.0;  // no products for the gradients of frozen weights
  return flops;
}

RunSize size_of_run(const RunConfig& config, const ParallelDegrees& degrees) {
  const TrainingConfig& training = config.training;
  const int64_t data_ranks = degrees.replicate * degrees.shard,
                rows = training.global_batch_size > 0
                           ? training.global_batch_size
                           : training.batch_size * training.gradient_accumulation_steps * data_ranks;
  RunSize size{.ranks = data_ranks * degrees.context};
  const auto model = model_of_shapes(config);
  const auto taught_by = teacher_config(config);
  std::shared_ptr<Transformer> teacher;
  if (taught_by) teacher = model_of_shapes(RunConfig{.model = *taught_by});
  if (config.job.task == "distill")
    freeze_for_distillation(*model, config, converted_layers(config, taught_by));
  for (size_t i = 0; teacher && i < teacher->parameters().size(); ++i)
    size.teacher += kFloat * real(teacher->parameters()[i].numel());
  for (const auto& parameter : model->parameters()) {
    size.parameters += parameter.numel();
    size.trained += parameter.requires_grad() ? parameter.numel() : 0;
  }
  size.flops_per_token = training_flops_per_token(config, *model, teacher.get());
  const int64_t micro_batches = std::max<int64_t>(rows / (training.batch_size * data_ranks), 1);
  const RankState state =
      state_of_rank(*model, degrees, static_cast<int>(config.parallel.zero_stage), micro_batches);
  add_state(state, size);
  add_activations(config, degrees, *model, state, size);
  size.earlier_gradients = micro_batches > 1 ? state.gradients : 0;
  size.tokens_per_step = real(rows) * real(training.seq_len);
  return size;
}

void expect_memory(const RunSize& size, const RunConfig& config, int64_t available) {
  if (config.parallel.device != "cpu") return;
  const double state = size.weights + size.gradients + size.moments;
  check<ConfigError>(state <= real(available), "model.hidden_size = ", config.model.hidden_size,
                     ", model.num_hidden_layers = ", config.model.num_hidden_layers, ": ", size.parameters,
                     " parameters with gradients and moments take ", gib(state), ", this machine has ",
                     gib(real(available)), " left");
  check<ConfigError>(size.certain() <= real(available), "training.batch_size = ", config.training.batch_size,
                     ", training.seq_len = ", config.training.seq_len, ": a micro-batch takes more than ",
                     gib(size.least_activations), " beside the ", gib(state),
                     " of parameters, gradients and moments; this machine has ", gib(real(available)),
                     " left");
}

void print_run_size(const RunSize& size, const RunConfig& config, int64_t available, std::ostream& out) {
  const TrainingConfig& training = config.training;
  const double micro_batches = size.tokens_per_step / (real(training.batch_size) * real(training.seq_len));
  const bool several = size.ranks > 1;
  out << "model      " << size.parameters << " parameters, " << size.trained << " of them train\n"
      << "step       " << training.batch_size << " rows x " << training.seq_len << " tokens x " << std::fixed
      << std::setprecision(0) << micro_batches << " micro-batches = " << size.tokens_per_step << " tokens; "
      << training.steps << " steps\n"
      << "compute    " << flops(size.flops_per_token) << " a token, "
      << flops(size.flops_per_token * size.tokens_per_step) << " a step, "
      << flops(size.flops_per_token * size.tokens_per_step * real(training.steps)) << " the run";
  if (several)
    out << "; " << flops(size.flops_per_token * size.tokens_per_step / real(size.ranks))
        << " a rank and step";
  out << "\nmemory     " << (several ? "of a rank: " : "") << "weights " << gib(size.weights)
      << ", gradients " << gib(size.gradients) << ", moments " << gib(size.moments) << ", activations about "
      << gib(size.activations);
  if (size.gathered > 0) out << ", gathered " << gib(size.gathered);
  if (size.teacher > 0) out << ", teacher " << gib(size.teacher);
  out << "; at most about " << gib(size.total()) << "\n";
  for (const auto& [label, bytes] : size.sent)
    out << "sent       " << label << " " << std::setprecision(0) << bytes << " bytes a rank and step\n";
  out << "machine    " << gib(real(available)) << " of memory left\n";
}

}  // namespace longreach
