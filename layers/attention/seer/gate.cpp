// From queries and keys to the gate's features and scores.
#include "layers/attention/seer/gate.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "layers/attention/seer/documents.h"
#include "layers/basic/norm.h"
#include "layers/basic/rope_documents.h"
#include "layers/ops/common/check.h"
#include "layers/ops/common/packed_documents.h"

namespace longreach {
namespace {

constexpr double kNormEps = 1e-6;
constexpr double kMaskedDecode = -1e20;
constexpr double kMaskedPrefill = std::numeric_limits<float>::lowest();

// The pools of "Kmaxminavg" or "Qavg", in the order max, min, avg.
std::vector<Pool> parse_pools(const std::string& word) {
  std::vector<Pool> pools;
  for (const auto& [name, pool] : {std::pair{"max", Pool::max}, {"min", Pool::min}, {"avg", Pool::mean}})
    if (word.find(name) != std::string::npos) pools.push_back(pool);
  return pools;
}

// x [B, N, H, I], weight [H, I, O] -> [B, N, H, O].
at::Tensor head_linear(const at::Tensor& x, const at::Tensor& weight) {
  const int64_t batch = x.size(0), rows = x.size(1), heads = x.size(2);
  const at::Tensor flat = x.permute({2, 0, 1, 3}).reshape({heads, batch * rows, x.size(3)});
  return flat.bmm(weight.to(x.scalar_type()))
      .view({heads, batch, rows, weight.size(2)})
      .permute({1, 2, 0, 3});
}

// cu_rows: bounds of documents in the rows of x, where these are packed blocks and not tokens.
at::Tensor turned(const SeerGateForm& form, const at::Tensor& x, RotaryEmbedding* rotary,
                  const at::Tensor& positions, const SeerPlaces& places, const at::Tensor& cu_rows = {}) {
  if (!form.rope || x.numel() == 0) return x;
  const bool packed = places.cu_seqlens.defined();
  const Rotation rotation =
      packed && cu_rows.defined()
          ? at_tokens(rotary->at(document_positions(places.cu_seqlens), x.scalar_type()),
                      tokens_of_rows(places.cu_seqlens, cu_rows, positions))
          : rotary->at(positions.expand({x.size(0), x.size(1)}).to(at::kCPU), x.scalar_type(),
                       packed ? 0 : places.length);
  return rotate(x.contiguous(), {rotation.cos.to(x.device()), rotation.sin.to(x.device())});
}

// First (or last) token of each pooled block within its document: int64 [1, M].
at::Tensor block_positions(const SeerGateForm& form, const PoolWindows& windows, int64_t tokens,
                           int64_t first_block) {
  std::vector<int64_t> positions;
  const at::Tensor bounds = window_cu_seqlens(windows);
  const int64_t count = window_count(windows, tokens);
  const int64_t shift = form.decode && form.end_position ? form.block_size - 1 : 0;
  for (int64_t i = 0, document = 0; i < count; ++i) {
    int64_t begin = 0;
    if (bounds.defined()) {
      while (bounds.const_data_ptr<int32_t>()[document + 1] <= i) ++document;
      begin = bounds.const_data_ptr<int32_t>()[document];
    }
    positions.push_back((first_block + i - begin) * form.block_size + shift);
  }
  return at::tensor(positions, at::kLong).view({1, count});
}

PoolWindows windows_of(const SeerGateForm& form, const SeerPlaces& places) {
  return {form.block_size, form.block_size, !form.decode, places.cu_seqlens};
}

at::Tensor normalised(const at::Tensor& x, const at::Tensor& weight) {
  return weight.defined() ? rms_norm(x, weight, kNormEps) : x;
}

SeerGateForm prefill_form(const SeerConfig& config, SeerGateForm form) {
  const std::string q_pooling = config.q_pooling == "auto" ? "Qavg" : config.q_pooling;
  check<ConfigError>(q_pooling != "Qproj" && q_pooling != "Qavgproj" && q_pooling != "Qorig",
                     "q_pooling = \"", q_pooling,
                     "\": belongs to form = \"decode\"; the prefill form pools by Qmax, Qmin, Qavg, ...");
  form.q_pools = parse_pools(q_pooling);
  const bool fits = form.q_pools.size() == 1 && form.hidden == form.head_dim;
  check<ConfigError>(config.layout != "single" || fits,
                     "layout = \"single\": needs one query pool and gate_hidden = head_dim (", form.head_dim,
                     "); q_pooling = \"", q_pooling, "\", gate_hidden = ", form.hidden);
  form.linear_q = config.layout == "double" || !fits;
  return form;
}

SeerGateForm decode_form(const SeerConfig& config, SeerGateForm form) {
  const std::string q_pooling = config.q_pooling == "auto" ? "Qproj" : config.q_pooling;
  const bool orig = q_pooling == "Qorig", average = q_pooling == "Qavg" || q_pooling == "Qavgproj";
  form.project_group = q_pooling == "Qproj";
  check<ConfigError>(orig || average || form.project_group, "q_pooling = \"", q_pooling,
                     "\": belongs to form = \"prefill\"; the decode form has Qproj, Qavgproj, Qavg, Qorig");
  form.average_group = average;
  form.average_last = orig;
  form.linear_q = form.project_group || q_pooling == "Qavgproj";
  check<ConfigError>(form.linear_q || form.hidden == form.head_dim, "gate_hidden = ", form.hidden,
                     ": q_pooling = \"", q_pooling,
                     "\" takes queries as they are, of head_dim = ", form.head_dim);
  form.norm = config.gate_qk_norm;
  return form;
}

}  // namespace

SeerGateForm seer_gate_form(const SeerConfig& config, const LayerSite& site) {
  SeerGateForm form;
  form.decode = config.decode_form();
  form.k_pools = parse_pools(config.k_pooling);
  form.rope = config.gate_rope;
  form.end_position = config.block_position == "end";
  form.block_size = config.block_size;
  form.hidden = config.gate_hidden;
  form.heads = site.num_heads;
  form.kv_heads = site.num_kv_heads;
  form.head_dim = site.head_dim;
  return form.decode ? decode_form(config, form) : prefill_form(config, form);
}

std::vector<int64_t> SeerGateForm::q_shape() const {
  if (!linear_q) return {};
  if (!decode) return {heads, static_cast<int64_t>(q_pools.size()) * head_dim, hidden};
  if (project_group) return {kv_heads, heads / kv_heads, head_dim, hidden};
  return {kv_heads, head_dim, hidden};
}

std::vector<int64_t> SeerGateForm::k_shape() const {
  return {single() ? heads : kv_heads, static_cast<int64_t>(k_pools.size()) * head_dim, hidden};
}

BlockGeometry SeerPlaces::geometry(const SeerGateForm& form) const {
  return {form.query_block(), form.block_size, tokens, offset, cu_seqlens, whole};
}

SeerPlaces seer_places(int64_t tokens, const at::Tensor& cu_seqlens) {
  SeerPlaces places{.tokens = tokens, .cu_seqlens = cu_seqlens, .length = tokens};
  if (!cu_seqlens.defined()) return places;
  expect_cu_seqlens(cu_seqlens, "cu_seqlens", tokens);
  places.length = 0;
  const int32_t* bounds = cu_seqlens.const_data_ptr<int32_t>();
  for (int64_t i = 0; i + 1 < cu_seqlens.numel(); ++i)
    places.length = std::max<int64_t>(places.length, bounds[i + 1] - bounds[i]);
  return places;
}

std::vector<PackedDocument> seer_documents(const SeerGateForm& form, const SeerPlaces& places) {
  auto documents = packed_documents(places.cu_seqlens, places.cu_seqlens, places.tokens - places.offset,
                                    places.tokens, form.query_block());
  if (documents.empty()) documents.emplace_back();
  place_windows(documents, windows_of(form, places));
  return documents;
}

int64_t seer_first_row(const SeerGateForm& form, const SeerPlaces& places) {
  return places.offset / form.query_block();
}

int64_t seer_whole_rows(const SeerGateForm& form, const SeerPlaces& places, const PackedDocument& document) {
  return places.whole == 0 ? document.rows : ceil_div(places.whole, form.query_block());
}

at::Tensor seer_own_blocks(const SeerGateForm& form, const SeerPlaces& places) {
  std::vector<int64_t> own;
  for (const PackedDocument& document : seer_documents(form, places))
    for (int64_t r = 0; r < document.rows; ++r)
      own.push_back(form.decode ? (places.offset + r) / form.block_size
                                : places.offset / form.block_size + r);
  return at::tensor(own, at::kLong);
}

at::Tensor seer_gate_queries(const SeerGateForm& form, const SeerGateWeights& weights, const at::Tensor& q,
                             RotaryEmbedding* rotary, const at::Tensor& positions, const SeerPlaces& places,
                             Implementation implementation) {
  if (!form.decode) {
    const PoolWindows windows = windows_of(form, places);
    const at::Tensor pooled = pool_blocks_by(implementation, q, form.q_pools, windows);
    const at::Tensor mapped = form.linear_q ? head_linear(pooled, weights.q) : pooled;
    return turned(form, mapped, rotary,
                  block_positions(form, windows, q.size(1), places.offset / form.block_size), places,
                  window_cu_seqlens(windows));
  }
  const int64_t group = form.heads / form.kv_heads;
  at::Tensor x = q;
  if (form.average_group) x = q.unflatten(2, {form.kv_heads, group}).mean(3);
  if (form.project_group) {
    x = head_linear(q.reshape({q.size(0), q.size(1), form.kv_heads, group * form.head_dim}),
                    weights.q.reshape({form.kv_heads, group * form.head_dim, form.hidden}));
  } else if (form.linear_q) {
    x = head_linear(x, weights.q);
  }
  x = turned(form, normalised(x, weights.q_norm), rotary, positions, places);
  // The mean of the heads' scores is the score of their mean.
  return form.average_last ? x.unflatten(2, {form.kv_heads, group}).mean(3) : x;
}

at::Tensor seer_gate_keys(const SeerGateForm& form, const SeerGateWeights& weights, const at::Tensor& k,
                          RotaryEmbedding* rotary, const SeerPlaces& places, Implementation implementation,
                          int64_t first_block) {
  const PoolWindows windows = windows_of(form, places);
  at::Tensor pooled = pool_blocks_by(implementation, k, form.k_pools, windows);
  if (form.single()) pooled = pooled.repeat_interleave(form.heads / form.kv_heads, 2);
  const at::Tensor mapped = normalised(head_linear(pooled, weights.k), weights.k_norm);
  return turned(form, mapped, rotary, block_positions(form, windows, k.size(1), first_block), places,
                window_cu_seqlens(windows));
}

at::Tensor seer_gate_logits(const SeerGateForm& form, const at::Tensor& gate_q, const at::Tensor& gate_k,
                            const SeerPlaces& places) {
  const double masked = form.decode ? kMaskedDecode : kMaskedPrefill;
  const double scale = 1.0 / std::sqrt(static_cast<double>(form.hidden));
  const auto documents = seer_documents(form, places);
  const int64_t most = most_blocks(documents, form.block_size), heads = gate_q.size(2);
  const auto wide = gate_q.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor own = seer_own_blocks(form, places).to(gate_q.device()).unsqueeze(1),
                   blocks = at::arange(most, own.options());
  const at::Tensor hidden = form.decode ? blocks >= own : blocks > own;
  std::vector<at::Tensor> parts;
  for (const PackedDocument& document : documents) {
    const at::Tensor q = gate_q.narrow(1, document.row, document.rows).to(wide).transpose(1, 2);
    const at::Tensor k = gate_k.narrow(1, document.window, document.windows)
                             .to(wide)
                             .repeat_interleave(heads / gate_k.size(2), 2)
                             .transpose(1, 2);
    const at::Tensor scores = q.matmul(k.transpose(2, 3)) * scale;
    parts.push_back(at::cat(
        {scores,
         at::zeros({scores.size(0), heads, document.rows, most - document.windows}, scores.options())},
        3));
  }
  return at::cat(parts, 2).masked_fill(hidden, masked);
}

}  // namespace longreach
