// Cases of SeerAttention: the gate's scores, its truth and loss, the blocks it chooses and attention over
// them.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/topk.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include "layers/attention/seer/gate.h"
#include "train/verify/case.h"

namespace longreach {
namespace {

using verify::Case;
using verify::VectorFile;

constexpr double kMaskedDecode = -1e20;  // the authors' value of what a row does not score

// What both forms have in common: the gate's features, and q and k turned to their positions.
struct Gate {
  SeerGateForm form;
  SeerPlaces places;
  at::Tensor q, k;                     // the gate's
  at::Tensor rotated_q, rotated_k, v;  // the attention's, detached
};

Gate read_gate(Case& run, const SeerConfig& config, const SeerGateWeights& weights, const at::Tensor& q,
               const at::Tensor& k, const at::Tensor& v, const at::Tensor& cu_seqlens) {
  const VectorFile& file = run.file;
  const LayerSite site{.num_heads = q.size(2), .num_kv_heads = k.size(2), .head_dim = q.size(3)};
  Gate gate{.form = seer_gate_form(config, site), .places = seer_places(q, cu_seqlens)};
  std::vector<at::Tensor> documents;
  if (cu_seqlens.defined())
    for (int64_t i = 0; i + 1 < cu_seqlens.numel(); ++i)
      documents.push_back(at::arange((cu_seqlens[i + 1] - cu_seqlens[i]).item<int64_t>(), at::kLong));
  const at::Tensor positions = (documents.empty() ? at::arange(q.size(1), at::kLong) : at::cat(documents))
                                   .unsqueeze(0)
                                   .expand({q.size(0), q.size(1)});
  const RopeConfig rope{.theta = file.real("rope_base")};
  RotaryEmbedding gate_rotary(rope, config.gate_hidden, q.size(1)), rotary(rope, q.size(3), q.size(1));
  gate.q = seer_gate_queries(gate.form, weights, q, &gate_rotary, positions, gate.places, run.implementation);
  gate.k = seer_gate_keys(gate.form, weights, k, &gate_rotary, gate.places, run.implementation);
  const Rotation rotation = rotary.at(positions, q.scalar_type());
  gate.rotated_q = rotate(q.detach(), rotation);
  gate.rotated_k = rotate(k.detach(), rotation);
  gate.v = v.detach();
  return gate;
}

struct Truth {
  at::Tensor block_max, target, o;
};

Truth truth_of(const Case& run, const Gate& gate) {
  const at::Tensor all = seer_all_blocks(gate.form, gate.places);
  const SeerAttended attended = seer_attend(gate.form, gate.rotated_q, gate.rotated_k, gate.v, all,
                                            gate.places, false, run.implementation);
  const at::Tensor block_max =
      seer_block_max_by(run.implementation, gate.form, gate.rotated_q, gate.rotated_k, gate.places);
  return {block_max, seer_gate_target(gate.form, block_max, all, gate.places), attended.o};
}

at::Tensor loss_of(const Case& run, const Gate& gate, const Truth& truth, double slice_ratio) {
  const at::Tensor loss = seer_gate_loss_by(run.implementation, gate.form, gate.q, gate.k, truth.target,
                                            gate.places, slice_ratio);
  SeerLossCount count;
  count.add(gate.form, gate.places, gate.q.size(0));
  return (loss / count.divisor()).view({1});
}

// "Qavg_Kmaxminavg" -> its halves.
void read_gate_type(const Case& run, SeerConfig& config) {
  const std::string type = run.file.word("gate_type");
  const size_t middle = type.find("_K");
  if (type.empty() || type[0] != 'Q' || middle == std::string::npos)
    run.refuse("gate_type \"", type, "\", expected Q..._K...");
  config.q_pooling = type.substr(0, middle);
  config.k_pooling = type.substr(middle + 1);
}

void run_prefill(Case& run) {
  const VectorFile& file = run.file;
  SeerConfig config{.form = "prefill",
                    .block_size = file.integer("block_size"),
                    .gate_hidden = file.integer("gate_hidden_size")};
  read_gate_type(run, config);
  if (file.truth_or("force_double", false)) config.layout = "double";
  SeerGateWeights weights{.k = run.leaf("param.mask_linear_k.weight")};
  if (run.has("param.mask_linear_q.weight")) weights.q = run.leaf("param.mask_linear_q.weight");
  const at::Tensor q = run.leaf("in.q"), k = run.leaf("in.k"), v = run.leaf("in.v");
  const Gate gate = read_gate(run, config, weights, q, k, v, {});
  const Truth truth = truth_of(run, gate);
  const at::Tensor logits = seer_gate_logits(gate.form, gate.q, gate.k, gate.places);
  run.produce("gate_logits", logits);
  run.produce("gate_score", logits.softmax(-1));
  run.produce("block_max", truth.block_max);
  run.produce("ground_truth", truth.target);
  run.produce("o_dense", truth.o);
  run.produce("loss", loss_of(run, gate, truth, 0));
  const auto choose = [&](const std::string& name, SeerRule rule) {
    rule.force_diagonal = false;
    rule.last_block_dense = file.truth_or("use_dense_for_last_block", false);
    const at::Tensor lists = seer_choose(gate.form, rule, gate.q, gate.k, gate.places, run.implementation);
    run.produce("mask_" + name, seer_block_map(lists, logits.size(3)));
    run.produce("o_sparse_" + name, seer_attend(gate.form, gate.rotated_q, gate.rotated_k, gate.v, lists,
                                                gate.places, false, run.implementation)
                                        .o);
  };
  choose("threshold", {.threshold = file.real("threshold")});
  choose("topk", {.density = file.real("nz_ratio")});
}

// [1, heads, N, blocks] of packed documents -> [documents, heads, longest, blocks]; rows without a token hold
// `rest`.
at::Tensor padded(const at::Tensor& packed, const at::Tensor& cu_seqlens, const at::Tensor& rest) {
  std::vector<at::Tensor> documents;
  for (int64_t i = 0; i + 1 < cu_seqlens.numel(); ++i) {
    const auto begin = cu_seqlens[i].item<int64_t>(), n = cu_seqlens[i + 1].item<int64_t>() - begin;
    at::Tensor whole =
        rest.expand({packed.size(1), rest.size(0), rest.size(1)}).to(packed.scalar_type()).clone();
    whole.narrow(1, 0, n).copy_(packed[0].narrow(1, begin, n));
    documents.push_back(whole);
  }
  return at::stack(documents);
}

// The authors' masks go on over rows that hold no token, where every visible block scores the same and
// torch's topk has chosen: no query stands there, and no rule of ours speaks of them.
struct EmptyRows {
  at::Tensor visible, logits, score;

  EmptyRows(int64_t length, int64_t blocks, int64_t block_size, at::ScalarType dtype) {
    const at::Tensor row = at::arange(length, at::kLong).unsqueeze(1), block = at::arange(blocks, at::kLong);
    visible = block < row.floor_divide(block_size);
    logits = at::zeros({length, blocks}, dtype).masked_fill(visible.logical_not(), kMaskedDecode);
    score = logits.softmax(-1);
  }
  at::Tensor best(int64_t count) const {
    if (score.size(1) <= count) return visible;
    const at::Tensor chosen = std::get<1>(at::topk(score, count, -1, true, false));
    return at::zeros_like(visible)
        .scatter(1, chosen, at::ones_like(chosen).to(at::kBool))
        .logical_and(visible);
  }
};

SeerConfig decode_config(const VectorFile& file) {
  SeerConfig config{.form = "decode",
                    .block_size = file.integer("block_size"),
                    .gate_hidden = file.integer("gate_hidden_size"),
                    .q_pooling = file.word("q_head_pooling_type"),
                    .k_pooling = file.word("k_pooling")};
  config.gate_qk_norm = file.truth_or("use_qk_norm", false);
  return config;
}

void run_decode(Case& run) {
  const VectorFile& file = run.file;
  const SeerConfig config = decode_config(file);
  SeerGateWeights weights{.k = run.leaf("param.attngate_linear_k.weight")};
  if (run.has("param.attngate_linear_q.weight")) weights.q = run.leaf("param.attngate_linear_q.weight");
  if (config.gate_qk_norm) {
    weights.q_norm = run.leaf("param.attngate_qnorm.weight");
    weights.k_norm = run.leaf("param.attngate_knorm.weight");
  }
  const at::Tensor cu_seqlens = run.integers("in.cu_seqlens").to(at::kInt);
  const at::Tensor q = run.leaf("in.q").unsqueeze(0), k = run.leaf("in.k").unsqueeze(0),
                   v = run.leaf("in.v").unsqueeze(0);
  const Gate gate = read_gate(run, config, weights, q, k, v, cu_seqlens);
  const Truth truth = truth_of(run, gate);
  const at::Tensor logits = seer_gate_logits(gate.form, gate.q, gate.k, gate.places);
  const EmptyRows empty(gate.places.length, logits.size(3), config.block_size, logits.scalar_type());
  const auto produce = [&](const std::string& name, const at::Tensor& packed, const at::Tensor& rest) {
    run.produce(name, padded(packed, cu_seqlens, rest));
  };
  const at::Tensor nothing = at::zeros_like(empty.score);
  produce("gate_logits", logits, empty.logits);
  produce("gate_score", logits.softmax(-1), empty.score);
  produce("ground_truth", truth.target, nothing);
  const at::Tensor by_head =
      seer_block_max_by(run.implementation, gate.form, gate.rotated_q, gate.rotated_k, gate.places, true);
  produce("block_max_per_qhead", by_head, nothing);
  run.produce("o_dense", truth.o[0]);
  run.produce("loss", loss_of(run, gate, truth, file.real("loss_slice_ratio")));
  const auto choose = [&](const std::string& name, const SeerRule& rule, const at::Tensor& rest) {
    const at::Tensor lists = seer_choose(gate.form, rule, gate.q, gate.k, gate.places, run.implementation);
    const at::Tensor own = seer_own_blocks(gate.form, gate.places).unsqueeze(1);
    // The authors force a query's own block after these masks.
    const at::Tensor past = at::arange(logits.size(3), own.options()) < own;
    produce("mask_" + name, seer_block_map(lists, logits.size(3)).logical_and(past), rest);
  };
  const int64_t budget = file.integer("block_budget");
  choose("budget", {.top_k = budget}, empty.best(budget));
  const double threshold = file.real("threshold");
  choose("threshold", {.threshold = threshold}, empty.score > threshold);
}

}  // namespace

void SeerConfig::verify(Case& run) {
  if (run.file.config().contains("gate_type")) return run_prefill(run);
  run_decode(run);
}

}  // namespace longreach
