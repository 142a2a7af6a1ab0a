#include "train/bench/training.h"

#include <ATen/ops/randint.h>

#include <cmath>
#include <memory>

#include "core/error.h"
#include "core/temporary_folder.h"
#include "layers/basic/module.h"
#include "layers/ops/matmul/matmul.h"
#include "models/transformer.h"
#include "train/bench/agreement.h"
#include "train/bench/measure.h"
#include "train/bench/peer_process.h"
#include "train/bench/statistics.h"
#include "train/gradient_norm.h"
#include "train/optimizer.h"

namespace longreach::bench {
namespace {

using nlohmann::json;

constexpr double kRate = 1e-3, kMaxNorm = 1.0;
constexpr int kLosses = 3;

ModelConfig model_of(const TrainingSetting& setting) {
  ModelConfig config;
  config.hidden_size = setting.hidden_size;
  config.num_hidden_layers = setting.layers;
  config.num_attention_heads = setting.heads;
  config.intermediate_size = setting.intermediate_size;
  config.max_position_embeddings = setting.tokens;
  config.resolve(setting.vocab_size);
  return config;
}

// A step of train/trainer.cpp, without its data and its log.
class OurTraining : public Timed {
 public:
  explicit OurTraining(const TrainingSetting& setting)
      : model_(model_of(setting), 1), options_{.autocast_bf16 = setting.dtype == "bfloat16"} {
    for (const auto& item : model_.named_parameters()) parameters_.emplace_back(item.key(), item.value());
    runs_ = whole_runs(parameters_);
    optimizer_ = std::make_unique<AdamW>(runs_, undecayed_parameters(model_), OptimizerConfig{});
    const at::Tensor text = at::randint(setting.vocab_size, {setting.batch, setting.tokens + 1}, at::kLong);
    tokens_ = text.narrow(1, 0, setting.tokens).contiguous();
    labels_ = text.narrow(1, 1, setting.tokens).contiguous();
    batch_ = whole_rows(setting.batch, setting.tokens);
  }

  double step() {
    optimizer_->zero_grad();
    const LossOutput out = model_.loss(tokens_, labels_, batch_, options_);
    const auto labels = static_cast<double>(out.tokens);
    (out.loss_sum / labels).backward();
    const double norm = gradient_norm(runs_).norm;
    check<Error>(optimizer_->step(kRate, clip_gradients(runs_, norm, kMaxNorm)),
                 "a training step is not finite: gradient norm ", norm);
    return out.nll_sum.item<double>() / labels;
  }

  Timing run(int64_t repeats) override {
    const Timing start = now();
    for (int64_t i = 0; i < repeats; ++i) step();
    return since(start);
  }

  double flops_per_token(int64_t tokens) const { return model_.flops_per_token(tokens); }
  const NamedParameters& parameters() const { return parameters_; }
  const at::Tensor& tokens() const { return tokens_; }
  const at::Tensor& labels() const { return labels_; }

 private:
  Transformer model_;
  LossOptions options_;
  NamedParameters parameters_;
  std::vector<Run> runs_;
  std::unique_ptr<AdamW> optimizer_;
  at::Tensor tokens_, labels_;
  Batch batch_;
};

// tests/benchmarks/peers/train_step.py, which starts from our weights.
class PeerTraining : public Timed {
 public:
  PeerTraining(const TrainingSetting& setting, const OurTraining& ours)
      : process_("train_step", setting.threads) {
    json request = setting;
    request["op"] = "prepare";
    const ModelConfig config = model_of(setting);
    const OptimizerConfig optimizer;
    request["rope_theta"] = config.rope.theta;
    request["norm_eps"] = config.rms_norm_eps;
    request["optimizer"] = {{"lr", kRate},
                            {"betas", {optimizer.beta1, optimizer.beta2}},
                            {"eps", optimizer.eps},
                            {"weight_decay", optimizer.weight_decay},
                            {"max_norm", kMaxNorm}};
    const auto hand_over = [&](const std::string& name, const at::Tensor& tensor) {
      const std::string path = folder_.path(name + ".f32");
      write_array(path, tensor);
      request["files"][name] = {{"path", path}, {"shape", tensor.sizes().vec()}};
    };
    for (const auto& [name, parameter] : ours.parameters()) hand_over(name, parameter.detach());
    hand_over("tokens", ours.tokens());
    hand_over("labels", ours.labels());
    process_.ask(request);
  }

  std::vector<double> losses(int steps) {
    return process_.ask({{"op", "losses"}, {"steps", steps}}).at("losses").get<std::vector<double>>();
  }

  Timing run(int64_t repeats) override {
    const json answer = process_.ask({{"op", "run"}, {"repeats", repeats}});
    return {answer.at("wall").get<double>(), answer.at("cpu").get<double>()};
  }

 private:
  const TemporaryFolder folder_{scratch_place()};
  PeerProcess process_;
};

void require_same_losses(const TrainingSetting& setting, OurTraining& ours, PeerTraining* peer,
                         TrainingRow& row) {
  std::vector<double> mine;
  for (int i = 0; i < kLosses; ++i) mine.push_back(ours.step());
  row.loss = mine.back();
  check<Refusal>(std::isfinite(row.loss), "loss ", row.loss);
  if (peer == nullptr) return;
  const std::vector<double> theirs = peer->losses(kLosses);
  row.peer_loss = theirs.back();
  const double limit = setting.dtype == "bfloat16" ? 1e-2 : 1e-4;
  for (size_t i = 0; i < mine.size(); ++i)
    check<Refusal>(std::abs(mine[i] - theirs[i]) <= limit * mine[i], "step ", i + 1, ": our loss is ",
                   mine[i], ", the peer's ", theirs[i], ", allowed is a difference of ", limit, " of it");
}

void fill(const Samples& samples, const OurTraining& ours, Peak peak, TrainingRow& row) {
  const TrainingSetting& setting = row.setting;
  const std::vector<double> mine = judged(samples.ours, setting.threads);
  row.seconds_min = minimum(mine);
  row.seconds_median = median(mine);
  const double flops = ours.flops_per_token(setting.tokens) * setting.tokens_a_step();
  row.peak_share = share_of_peak("training", flops, row.seconds_min, setting.dtype, setting.threads, peak);
  if (samples.peer.empty()) return;
  const std::vector<double> theirs = judged(samples.peer, setting.threads);
  row.peer_seconds_min = minimum(theirs);
  row.peer_seconds_median = median(theirs);
  share_of_peak(setting.peer, flops, row.peer_seconds_min, setting.dtype, setting.threads, peak);
  const Ratio ratio = ratio_by_pairs(mine, theirs);
  row.ratio = ratio.median;
  row.ratio_of_minima = ratio.of_minima;
}

}  // namespace

std::vector<std::string> training_peer_names() { return {"eager", "compile"}; }

TrainingRow measure_training(const TrainingSetting& setting, Peak peak) {
  set_matmul_library(fastest_matmul_library());  // as `longreach train` does
  TrainingRow row{.setting = setting, .products = std::string(name_of(matmul_library()))};
  try {
    OurTraining ours(setting);
    const auto peer = setting.peer.empty() ? nullptr : std::make_unique<PeerTraining>(setting, ours);
    require_same_losses(setting, ours, peer.get(), row);
    fill(alternate(ours, peer.get(), setting.rounds), ours, peak, row);
  } catch (const UserError&) {
    throw;
  } catch (const std::exception& error) {
    row = {.setting = setting, .refused = one_line(error.what()), .products = row.products};
  }
  return row;
}

}  // namespace longreach::bench
