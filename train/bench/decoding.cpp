#include "train/bench/decoding.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <memory>

#include "core/error.h"
#include "core/temporary_folder.h"
#include "layers/ops/cpu/bandwidth.h"
#include "layers/ops/matmul/matmul.h"
#include "models/weight_dtype.h"
#include "train/bench/agreement.h"
#include "train/bench/measure.h"
#include "train/bench/peer_process.h"
#include "train/bench/statistics.h"
#include "train/saved_model.h"

namespace longreach::bench {
namespace {

using nlohmann::json;

std::shared_ptr<Transformer> model_of(const DecodingSetting& setting) {
  std::shared_ptr<Transformer> model;
  if (setting.checkpoint.empty()) {
    ModelConfig config;
    config.hidden_size = setting.hidden_size;
    config.num_hidden_layers = setting.layers;
    config.num_attention_heads = setting.heads;
    config.num_key_value_heads = setting.kv_heads;
    config.intermediate_size = setting.intermediate_size;
    config.max_position_embeddings = 2 * (setting.tokens + setting.steps);
    config.tie_word_embeddings = true;
    config.resolve(setting.vocab_size);
    model = std::make_shared<Transformer>(config, 1);
    model->eval();
  } else {
    model = load_saved_model(setting.checkpoint).model;
  }
  store_matrices_as(*model, setting.dtype == "bfloat16" ? at::kBFloat16 : at::kFloat);
  return model;
}

// A round begins with the prompt alone in the cache, whatever was decoded before.
class OurDecoding : public Timed {
 public:
  explicit OurDecoding(const DecodingSetting& setting) : setting_(setting), model_(model_of(setting)) {
    text_ = at::randint(model_->config().vocab_size, {1, setting.tokens + setting.steps}, at::kLong);
  }

  Timing run(int64_t repeats) override {
    Timing total;
    for (int64_t i = 0; i < repeats; ++i) {
      const Timing once = setting_.prefill ? timed_prompt() : timed_steps();
      total.wall += once.wall;
      total.cpu += once.cpu;
    }
    return total;
  }

  // After the prompt and all further tokens, fed one by one.
  at::Tensor logits() {
    ModelDecodeState state = start();
    at::Tensor last = model_->decode(prompt(), state);
    for (int64_t i = setting_.tokens; i < text_.size(1); ++i)
      last = model_->decode(text_.narrow(1, i, 1), state);
    return last;
  }

  // A token reads every weight once, of an embedding that is not the output layer too a row.
  double bytes_a_token() const {
    double bytes = 0;
    for (const auto& item : model_->named_parameters())
      if (item.key() != "model.embed_tokens.weight" || model_->config().tie_word_embeddings)
        bytes += static_cast<double>(item.value().nbytes());
    return bytes;
  }

  // Of the prompt: the output layer computes its last token alone.
  double prompt_flops() const {
    const ModelConfig& config = model_->config();
    const auto tokens = static_cast<double>(setting_.tokens);
    const double head = 2.0 * static_cast<double>(config.vocab_size * config.hidden_size);
    return (model_->flops_per_token(setting_.tokens) / 3.0 - head) * tokens + head;
  }

  const Transformer& model() const { return *model_; }
  const at::Tensor& text() const { return text_; }

 private:
  ModelDecodeState start() const { return model_->start_decoding(1, text_.size(1)); }
  at::Tensor prompt() const { return text_.narrow(1, 0, setting_.tokens); }

  Timing timed_prompt() {
    ModelDecodeState state = start();
    const Timing begin = now();
    model_->decode(prompt(), state);
    return since(begin);
  }

  // The likeliest token follows, as it does in greedy generation.
  Timing timed_steps() {
    ModelDecodeState state = start();
    at::Tensor last = model_->decode(prompt(), state);
    const Timing begin = now();
    for (int64_t i = 0; i < setting_.steps; ++i) {
      const auto next = last.argmax().item<int64_t>();
      last = model_->decode(at::tensor({next}, at::kLong).unsqueeze(0), state);
    }
    return since(begin);
  }

  DecodingSetting setting_;
  std::shared_ptr<Transformer> model_;
  at::Tensor text_;  // [1, tokens + steps]
};

// What the peer's script does not compute.
void expect_plain_llama(const Transformer& model) {
  const ModelConfig& config = model.config();
  const bool dense = std::all_of(config.attention.begin(), config.attention.end(),
                                 [](const auto& entry) { return kind_of(entry.config) == "dense"; });
  const bool plain = dense && config.mlp == "swiglu" && config.norm == "rmsnorm" && !config.qk_norm &&
                     !config.attention_bias && !config.attention_output_bias && !config.mlp_bias &&
                     config.rope.rope_type == "default" && config.embedding_scale == 1.0 &&
                     config.residual.form != "minimax";
  check<UserError>(plain,
                   "--peer eager: it computes plain Llama models (dense attention, no biases, no QK-norm, no "
                   "rope scaling); expected --peer none");
}

// tests/benchmarks/peers/decode_step.py, with our weights.
class PeerDecoding : public Timed {
 public:
  PeerDecoding(const DecodingSetting& setting, const OurDecoding& ours)
      : setting_(setting), process_("decode_step", setting.threads) {
    expect_plain_llama(ours.model());
    const ModelConfig& config = ours.model().config();
    json request{{"op", "prepare"},
                 {"dtype", setting.dtype},
                 {"threads", setting.threads},
                 {"layers", config.num_hidden_layers},
                 {"heads", config.num_attention_heads},
                 {"kv_heads", config.num_key_value_heads},
                 {"head_dim", config.head_dim},
                 {"rope_theta", config.rope.theta},
                 {"norm_eps", config.rms_norm_eps},
                 {"limit", ours.text().size(1)}};
    for (const auto& item : ours.model().named_parameters()) {
      const std::string path = folder_.path(item.key() + ".f32");
      write_array(path, item.value().detach());
      request["files"][item.key()] = {{"path", path}, {"shape", item.value().sizes().vec()}};
    }
    const int64_t* ids = ours.text().const_data_ptr<int64_t>();
    text_.assign(ids, ids + ours.text().size(1));
    process_.ask(request);
  }

  at::Tensor logits(int64_t vocab) {
    const std::string path = folder_.path("logits.f32");
    write_array(path, at::zeros({1, vocab}));
    process_.ask({{"op", "logits"}, {"tokens", text_}, {"at_once", setting_.tokens}, {"file", path}});
    return read_array(path, {1, vocab});
  }

  Timing run(int64_t repeats) override {
    const std::vector<int64_t> prompt(text_.begin(), text_.begin() + setting_.tokens);
    const json answer = process_.ask({{"op", setting_.prefill ? "prefill" : "decode"},
                                      {"tokens", prompt},
                                      {"steps", setting_.steps},
                                      {"repeats", repeats}});
    return {answer.at("wall").get<double>(), answer.at("cpu").get<double>()};
  }

 private:
  DecodingSetting setting_;
  std::vector<int64_t> text_;
  const TemporaryFolder folder_{scratch_place()};
  PeerProcess process_;
};

// As many bytes as the weights of `steps` tokens have, from one place of the size of all weights.
class Reading : public Timed {
 public:
  Reading(double bytes, int64_t steps)
      : buffer_(at::zeros({static_cast<int64_t>(bytes)}, at::kByte)), steps_(steps) {}

  Timing run(int64_t repeats) override {
    const Timing start = now();
    for (int64_t i = 0; i < repeats * steps_; ++i) read_memory(buffer_.const_data_ptr(), buffer_.numel());
    return since(start);
  }

 private:
  at::Tensor buffer_;
  int64_t steps_;
};

void require_same_logits(const DecodingSetting& setting, OurDecoding& ours, PeerDecoding* peer,
                         DecodingRow& row) {
  const at::Tensor mine = ours.logits().to(at::kDouble);
  check<Refusal>(mine.isfinite().all().item<bool>(), "logits that are not finite");
  if (peer == nullptr) return;
  const at::Tensor theirs = peer->logits(mine.size(1)).to(at::kDouble);
  row.difference = ((mine - theirs).norm() / theirs.norm()).item<double>();
  const double limit = setting.dtype == "bfloat16" ? 5e-2 : 1e-4;
  check<Refusal>(row.difference <= limit, "our logits differ from the peer's by ", row.difference,
                 " of them, allowed is ", limit);
}

std::vector<double> a_token(const std::vector<Timing>& samples, const DecodingSetting& setting) {
  std::vector<double> seconds = judged(samples, setting.threads);
  for (double& one : seconds) one /= setting.tokens_a_call();
  return seconds;
}

void fill_times(const Samples& samples, DecodingRow& row) {
  const std::vector<double> mine = a_token(samples.ours, row.setting);
  row.seconds_min = minimum(mine);
  row.seconds_median = median(mine);
  if (samples.peer.empty()) return;
  const std::vector<double> theirs = a_token(samples.peer, row.setting);
  row.peer_seconds_min = minimum(theirs);
  row.peer_seconds_median = median(theirs);
  const Ratio ratio = ratio_by_pairs(mine, theirs);
  row.ratio = ratio.median;
  row.ratio_of_minima = ratio.of_minima;
}

// Ours beside plain reading, by turns as well: the share is that of pairs.
void fill_bandwidth(OurDecoding& ours, DecodingRow& row) {
  const DecodingSetting& setting = row.setting;
  row.bytes = ours.bytes_a_token();
  Reading reading(row.bytes, setting.steps);
  const Samples samples = alternate(ours, &reading, setting.rounds);
  const std::vector<double> mine = a_token(samples.ours, setting), plain = a_token(samples.peer, setting);
  row.bandwidth = row.bytes / minimum(plain);
  row.bandwidth_share = ratio_by_pairs(mine, plain).median;
  if (row.peer_seconds_median > 0) row.peer_bandwidth_share = median(plain) / row.peer_seconds_median;
}

void fill_peak(const OurDecoding& ours, Peak peak, DecodingRow& row) {
  const DecodingSetting& setting = row.setting;
  const double flops = ours.prompt_flops() / static_cast<double>(setting.tokens);
  const auto share = [&](const std::string& who, double seconds) {
    return share_of_peak(who, flops, seconds, setting.dtype, setting.threads, peak);
  };
  row.peak_share = share("prefill", row.seconds_min);
  if (row.peer_seconds_min > 0) row.peer_peak_share = share(setting.peer, row.peer_seconds_min);
}

}  // namespace

DecodingRow measure_decoding(const DecodingSetting& setting, Peak peak) {
  set_matmul_library(fastest_matmul_library());
  const at::NoGradGuard no_grad;
  DecodingRow row{.setting = setting};
  try {
    OurDecoding ours(setting);
    const auto peer = setting.peer.empty() ? nullptr : std::make_unique<PeerDecoding>(setting, ours);
    require_same_logits(setting, ours, peer.get(), row);
    fill_times(alternate(ours, peer.get(), setting.rounds), row);
    setting.prefill ? fill_peak(ours, peak, row) : fill_bandwidth(ours, row);
  } catch (const UserError&) {
    throw;
  } catch (const std::exception& error) {
    row = {.setting = setting, .refused = one_line(error.what())};
  }
  return row;
}

}  // namespace longreach::bench
