#include "train/bench/layer.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/scaled_dot_product_attention.h>

#include <algorithm>
#include <memory>

#include "core/config.h"
#include "core/error.h"
#include "layers/attention/attention.h"
#include "layers/attention/mechanisms.h"
#include "layers/basic/rope.h"
#include "layers/ops/matmul/matmul.h"
#include "models/transformer.h"
#include "train/bench/agreement.h"
#include "train/bench/measure.h"
#include "train/bench/statistics.h"

namespace longreach::bench {
namespace {

constexpr std::string_view kEnding = "_layer";
constexpr int64_t kCheckedTokens = 256;

std::string kind_of_layer(const std::string& name) { return name.substr(0, name.size() - kEnding.size()); }

LayerSite site_of(const Setting& setting) {
  return {.hidden_size = setting.heads * setting.head_dim,
          .num_heads = setting.heads,
          .num_kv_heads = setting.kv_heads,
          .head_dim = setting.head_dim,
          .max_position_embeddings = setting.tokens,
          .seed = 1};
}

}  // namespace

AttentionConfig layer_config(const Setting& setting) {
  ConfigDocument document =
      ConfigDocument::from_text(text("kind = \"", kind_of_layer(setting.name), "\""), setting.name);
  for (const std::string& option : setting.options) {
    const size_t equals = option.find('=');
    check<UserError>(equals != std::string::npos && equals > 0, "--set: found `", one_line(option, 100),
                     "`, expected KEY=VALUE");
    document.override_key(option.substr(0, equals), option.substr(equals + 1));
  }
  AttentionEntry entry;
  document.read(fields_of(entry));
  return entry.config;
}

std::shared_ptr<Attention> layer_of(const Setting& setting, Implementation implementation) {
  LayerSite site = site_of(setting);
  site.implementation = implementation;
  return make_attention(layer_config(setting), site);
}

namespace {

// What a benchmark's own kind is compared with.
std::shared_ptr<Attention> dense_layer(const Setting& setting) {
  return make_attention(AttentionConfig(DenseConfig{}), site_of(setting));
}

Batch batch_of(const at::Tensor& x) { return whole_rows(x.size(0), x.size(1)); }

LayerFunction function_of(std::shared_ptr<Attention> layer) {
  return [layer = std::move(layer)](const at::Tensor& x) { return layer->forward(x, batch_of(x)); };
}

// The parameters of a dense layer around PyTorch's operator; they are cast once, where ours casts them in
// each pass.
LayerFunction sdpa_layer(const Setting& setting) {
  const LayerSite site = site_of(setting);
  const auto dense = dense_layer(setting);
  const auto rotary =
      std::make_shared<RotaryEmbedding>(site.rope, site.head_dim, site.max_position_embeddings);
  const at::ScalarType dtype = scalar_type(setting.dtype);
  for (at::Tensor& parameter : dense->parameters()) parameter.set_data(parameter.detach().to(dtype));
  const auto parameters = dense->named_parameters();
  return [parameters, rotary, head_dim = site.head_dim](const at::Tensor& x) -> AttentionOutput {
    const auto heads = [&](const char* name) {
      return at::linear(x, parameters[name]).unflatten(2, {-1, head_dim});
    };
    const Rotation rotation = rotary->at(batch_of(x).positions, at::kFloat);
    const at::Tensor q = rotate(heads("q_proj.weight"), rotation).transpose(1, 2),
                     k = rotate(heads("k_proj.weight"), rotation).transpose(1, 2),
                     v = heads("v_proj.weight").transpose(1, 2);
    const at::Tensor o = at::scaled_dot_product_attention(q, k, v, {}, 0.0, /*is_causal=*/true, std::nullopt,
                                                          q.size(1) != k.size(1));
    return {at::linear(o.transpose(1, 2).flatten(2), parameters["o_proj.weight"]), {}};
  };
}

LayerFunction peer_of(const Setting& setting) {
  return setting.peer == "sdpa" ? sdpa_layer(setting) : function_of(dense_layer(setting));
}

// The mechanism's own losses are part of a training step's backward pass.
void differentiate(const AttentionOutput& out, const at::Tensor& dy) {
  if (out.losses.empty()) return out.y.backward(dy);
  at::Tensor total = (out.y * dy).sum();
  for (const auto& [name, loss] : out.losses) total = total + loss;
  total.backward();
}

class LayerContestant : public Timed {
 public:
  LayerContestant(LayerFunction function, const at::Tensor& x, at::Tensor dy)
      : function_(std::move(function)), x_(x.detach().clone()), dy_(std::move(dy)) {
    x_.requires_grad_(dy_.defined());
  }

  Passes once() { return layer_passes(function_, x_, dy_); }

  Timing run(int64_t repeats) override {
    const Timing start = now();
    for (int64_t i = 0; i < repeats; ++i) once();
    return since(start);
  }

 private:
  LayerFunction function_;
  at::Tensor x_, dy_;
};

double require_layer_reference(const Setting& setting, const at::Tensor& x, const at::Tensor& dy) {
  const auto first = [&](const at::Tensor& tensor, at::ScalarType dtype) {
    return tensor.defined() ? tensor.slice(1, 0, kCheckedTokens).to(dtype) : tensor;
  };
  const auto passes = [&](Implementation implementation, at::ScalarType dtype) {
    const auto layer = layer_of(setting, implementation);
    layer->to(dtype);
    return LayerContestant(function_of(layer), first(x, dtype), first(dy, dtype)).once();
  };
  const Passes ours = passes(Implementation::fused, at::kFloat),
               exact = passes(Implementation::reference, at::kDouble);
  double error = require_rows(setting.name, "y", ours.y, exact.y);
  if (dy.defined()) error = std::max(error, require_rows(setting.name, "dx", ours.dx, exact.dx));
  return error;
}

double flops_of(const Setting& setting, const Attention& layer) {
  return layer.flops_per_token(setting.tokens) * static_cast<double>(setting.batch * setting.tokens) *
         (setting.backward() ? 3 : 1);
}

void time_layer(const Setting& setting, const at::Tensor& x, const at::Tensor& dy, Peak peak, Row& row) {
  const auto layer = layer_of(setting);
  LayerContestant ours(function_of(layer), x, dy);
  std::unique_ptr<LayerContestant> peer;
  if (!setting.peer.empty()) peer = std::make_unique<LayerContestant>(peer_of(setting), x, dy);
  row.flops = flops_of(setting, *layer);
  row.peer_same_function = kind_of_layer(setting.name) == "dense";
  fill_row(alternate(ours, peer.get(), setting.rounds), flops_of(setting, *dense_layer(setting)), peak, row);
}

}  // namespace

std::string layer_name(const std::string& kind) { return kind + std::string(kEnding); }

std::vector<std::string> layer_names() {
  std::vector<std::string> names;
  for (const std::string& kind : attention_kinds()) names.push_back(layer_name(kind));
  return names;
}

bool is_layer(const std::string& name) {
  const std::vector<std::string> names = layer_names();
  return std::ranges::find(names, name) != names.end();
}

std::vector<std::string> layer_peer_names() { return {"sdpa", "dense"}; }

void expect_layer_setting(const Setting& setting) {
  const std::vector<std::string> known = layer_peer_names();
  check<UserError>(setting.peer.empty() || std::ranges::find(known, setting.peer) != known.end(),
                   "--peer: found ", setting.peer, " for ", setting.name, ", allowed: ", join(known),
                   ", none");
  expect_fits(layer_config(setting), site_of(setting));
}

Passes layer_passes(const LayerFunction& function, at::Tensor& x, const at::Tensor& dy) {
  x.mutable_grad() = at::Tensor();
  const at::AutoGradMode recording(dy.defined());
  const AttentionOutput out = function(x);
  if (dy.defined()) differentiate(out, dy);
  return {out.y.detach(), x.grad()};
}

Row measure_layer(const Setting& setting, Peak peak) {
  set_matmul_library(fastest_matmul_library());  // as `longreach train` does
  Row row{.setting = setting};
  try {
    // Of the size of a normalised residual stream.
    const Problem problem = make_problem(setting);
    const at::Tensor x = problem.q.flatten(2);
    const at::Tensor dy = setting.backward() ? problem.grad_o.flatten(2) : at::Tensor();
    row.error = require_layer_reference(setting, x, dy);
    time_layer(setting, x, dy, peak, row);
    return row;
  } catch (const UserError&) {
    throw;
  } catch (const std::exception& error) {
    return Row{.setting = setting, .refused = one_line(error.what())};
  }
}

MemoryFigure layer_memory_figure(const Setting& setting) {
  const auto contestant = [](const Setting& one) {
    const Problem problem = make_problem(one);
    return LayerContestant(function_of(layer_of(one)), problem.q.flatten(2), problem.grad_o.flatten(2));
  };
  Setting small = setting;
  small.tokens = std::min<int64_t>(kCheckedTokens, setting.tokens);
  contestant(small).once();
  LayerContestant layer = contestant(setting);
  Passes kept;
  MemoryFigure figure{.tokens = setting.tokens};
  figure.extra_bytes = extra_memory_of([&] { kept = layer.once(); });
  figure.result_bytes = static_cast<int64_t>(kept.y.nbytes() + kept.dx.nbytes());
  for (const at::Tensor& parameter : layer_of(setting)->parameters())
    figure.result_bytes += static_cast<int64_t>(parameter.nbytes());
  return figure;
}

}  // namespace longreach::bench
