#include "layers/attention/common/softmax_attention.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/sigmoid.h>

#include <cmath>

#include "layers/attention/common/context/places.h"
#include "layers/basic/initialization.h"
#include "layers/basic/rope_documents.h"
#include "layers/ops/common/check.h"
#include "layers/ops/common/masked_attention.h"

namespace longreach {

SoftmaxAttention::SoftmaxAttention(const LayerSite& site, bool rope, bool output_gate)
    : site_(site), rope_(rope) {
  check<ConfigError>(site.num_heads > 0 && site.num_kv_heads > 0 && site.num_heads % site.num_kv_heads == 0,
                     "num_key_value_heads = ", site.num_kv_heads,
                     ": must divide num_attention_heads = ", site.num_heads);
  if (rope)
    rotary_ = site.rotary
                  ? site.rotary
                  : std::make_shared<RotaryEmbedding>(site.rope, site.head_dim, site.max_position_embeddings);
  const int64_t inner = site.num_heads * site.head_dim, kv_inner = site.num_kv_heads * site.head_dim;
  const auto make = [&](const char* name, int64_t in, int64_t out, double std, bool bias) {
    return register_module(name, std::make_shared<Linear>(in, out, std, derive_seed(site.seed, name), bias));
  };
  q_proj_ = make("q_proj", site.hidden_size, inner, site.initializer_range, site.attention_bias);
  k_proj_ = make("k_proj", site.hidden_size, kv_inner, site.initializer_range, site.attention_bias);
  v_proj_ = make("v_proj", site.hidden_size, kv_inner, site.initializer_range, site.attention_bias);
  o_proj_ = make("o_proj", inner, site.hidden_size, site.residual_std(), site.attention_output_bias);
  if (site.qk_norm) {
    q_norm_ = register_module("q_norm", std::make_shared<Norm>("rmsnorm", site.head_dim, site.norm_eps));
    k_norm_ = register_module("k_norm", std::make_shared<Norm>("rmsnorm", site.head_dim, site.norm_eps));
  }
  if (output_gate) output_gate_ = make("o_gate", site.hidden_size, inner, site.initializer_range, false);
}

Heads SoftmaxAttention::split_heads(const at::Tensor& x) const {
  expect_shape(x, "x", {-1, -1, site_.hidden_size});
  const auto split = [&](const at::Tensor& merged, int64_t heads) {
    return merged.view({x.size(0), x.size(1), heads, site_.head_dim});
  };
  const auto merged = linear_maps(x, {q_proj_->projection(), k_proj_->projection(), v_proj_->projection()});
  Heads heads{split(merged[0], site_.num_heads), split(merged[1], site_.num_kv_heads),
              split(merged[2], site_.num_kv_heads)};
  if (q_norm_) {
    heads.q = q_norm_->forward(heads.q);
    heads.k = k_norm_->forward(heads.k);
  }
  return heads;
}

Rotation SoftmaxAttention::rotation_at(const at::Tensor& positions, const at::Tensor& x,
                                       int64_t length) const {
  expect_shape(positions, "positions", {x.size(0), x.size(1)});
  return rotary_->at(positions, x.scalar_type(), length, x.device());
}

Rotation SoftmaxAttention::rotation_of(const Batch& batch, const at::Tensor& x) const {
  if (!batch.context || !rotary_->depends_on_length()) return rotation_at(batch.positions, x);
  return rotation_in(*batch.context, batch.positions, own_tokens(*batch.context), x);
}

Rotation SoftmaxAttention::rotation_in(const ContextGroup& context, const at::Tensor& positions,
                                       const at::Tensor& tokens, const at::Tensor& x) const {
  return longreach::rotation_in(context, *rotary_, positions, tokens, x);
}

static Heads turned(const Heads& heads, const Rotation& rotation) {
  return {rotate(heads.q, rotation), rotate(heads.k, rotation), heads.v};
}

Heads SoftmaxAttention::rotated(const Heads& heads, const at::Tensor& positions, int64_t length) const {
  return rope_ ? turned(heads, rotation_at(positions, heads.q, length)) : heads;
}

Heads SoftmaxAttention::rotated(const Heads& heads, const Batch& batch) const {
  return rope_ ? turned(heads, rotation_of(batch, heads.q)) : heads;
}

Heads SoftmaxAttention::project(const at::Tensor& x, const at::Tensor& positions, int64_t length) const {
  return rotated(split_heads(x), positions, length);
}

Heads SoftmaxAttention::project(const at::Tensor& x, const Batch& batch) const {
  return rotated(split_heads(x), batch);
}

at::Tensor SoftmaxAttention::merge(const at::Tensor& o) const {
  return o_proj_->forward(o.reshape({o.size(0), o.size(1), site_.num_heads * site_.head_dim}));
}

at::Tensor SoftmaxAttention::finish(const at::Tensor& x, const at::Tensor& o) const {
  return merge(output_gate_ ? o * at::sigmoid(output_gate_->forward(x)).view(o.sizes()) : o);
}

at::Tensor SoftmaxAttention::next_positions(const at::Tensor& x, int64_t seen) const {
  if (rope_) rotary_->expect_steady_angles(seen, x.size(1));
  return at::arange(seen, seen + x.size(1), at::kLong).unsqueeze(0).expand({x.size(0), -1});
}

double SoftmaxAttention::flops(double keys) const {
  const double scores_and_values = 4.0 * static_cast<double>(site_.num_heads * site_.head_dim) * keys;
  const double gate = output_gate_ ? output_gate_->flops() : 0.0;
  return q_proj_->flops() + k_proj_->flops() + v_proj_->flops() + o_proj_->flops() + gate + scores_and_values;
}

at::Tensor attend(const Heads& heads, const IntervalMask& mask, Implementation implementation) {
  return interval_attention_by(implementation, heads.q, heads.k, heads.v, mask).o;
}

at::Tensor each_document(const Heads& heads, const at::Tensor& cu_seqlens,
                         const std::function<at::Tensor(const Heads&)>& f) {
  if (!cu_seqlens.defined()) return f(heads);
  expect_cu_seqlens(cu_seqlens, "cu_seqlens", heads.q.size(1));
  std::vector<at::Tensor> parts;
  const int32_t* bounds = cu_seqlens.const_data_ptr<int32_t>();
  for (int64_t i = 0; i + 1 < cu_seqlens.numel(); ++i) {
    const auto piece = [&](const at::Tensor& whole) {
      return whole.narrow(1, bounds[i], bounds[i + 1] - bounds[i]);
    };
    if (bounds[i + 1] > bounds[i]) parts.push_back(f({piece(heads.q), piece(heads.k), piece(heads.v)}));
  }
  return parts.empty() ? f(heads) : at::cat(parts, 1);
}

at::Tensor masked_softmax_attention(const Heads& heads, const at::Tensor& visible) {
  const double scale = 1.0 / std::sqrt(static_cast<double>(heads.q.size(3)));
  return masked_attention(heads.q, heads.k, heads.v, visible.to(heads.q.device()), scale).o;
}

}  // namespace longreach
