// One sequence over several ranks: the gate's keys come from all, then the blocks that somebody chose. What a
// document's whole length decides (budgets, rows that teach) is decided by it, whoever owns its end.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/tensor.h>

#include <algorithm>

#include "layers/attention/common/context/chosen_blocks.h"
#include "layers/attention/common/context/head_share.h"
#include "layers/attention/common/context/places.h"
#include "layers/attention/common/context/planned_rows.h"
#include "layers/attention/common/context/stretch_rows.h"
#include "layers/attention/seer/module.h"
#include "layers/ops/common/check.h"
#include "layers/ops/document.h"

namespace longreach::seer {
namespace {

// Whole documents of a fresh piece, or what the piece has of one that other ranks have parts of.
struct Part {
  size_t piece;
  int64_t local, tokens;  // among the own tokens
  int64_t begin, end;     // of its documents in the row, up to its last token
  SeerPlaces places;
};

Part begun(size_t piece, int64_t local, int64_t tokens, const Interval& document, int64_t offset) {
  Part part{piece, local, tokens, document.begin, document.begin + offset + tokens, {}};
  part.places = {
      .tokens = offset + tokens, .offset = offset, .length = document.size(), .whole = document.size()};
  return part;
}

void add_fresh(const SequenceLayout& layout, const Piece& piece, size_t number, std::vector<Part>& parts) {
  const auto last_begin = piece.cu_seqlens[piece.cu_seqlens.size() - 2];
  const Interval last = layout.document_of(piece.begin + last_begin);
  const bool cut = last.end > piece.begin + piece.tokens;
  std::vector<int32_t> bounds = piece.cu_seqlens;
  if (cut) bounds.pop_back();
  if (bounds.back() > 0)
    parts.push_back({number, piece.local, bounds.back(), piece.begin, piece.begin + bounds.back(),
                     seer_places(bounds.back(), at::tensor(bounds, at::kInt))});
  if (cut) parts.push_back(begun(number, piece.local + last_begin, piece.tokens - last_begin, last, 0));
}

std::vector<Part> parts_of(const ContextGroup& context) {
  std::vector<Part> parts;
  for (size_t i = 0; i < context.pieces().size(); ++i) {
    const Piece& piece = context.pieces()[i];
    if (piece.continued())
      parts.push_back(
          begun(i, piece.local, piece.tokens, context.layout().document_of(piece.begin), piece.before()));
    else
      add_fresh(context.layout(), piece, i, parts);
  }
  return parts;
}

at::Tensor of(const Part& part, const at::Tensor& own) { return own.narrow(1, part.local, part.tokens); }

StretchRows gate_rows(const std::shared_ptr<const ContextGroup>& context, const SeerGateForm& form) {
  return {context, [size = form.block_size, whole = form.decode](int64_t tokens) {
            return whole ? tokens / size : ceil_div(tokens, size);
          }};
}

// Lists of a piece from those of its parts, one behind the other.
at::Tensor joined(const std::vector<at::Tensor>& lists) {
  int64_t widest = 0;
  for (const at::Tensor& list : lists) widest = std::max(widest, list.size(3));
  std::vector<at::Tensor> padded;
  for (const at::Tensor& list : lists)
    padded.push_back(at::constant_pad_nd(list, {0, widest - list.size(3)}, -1));
  return at::cat(padded, 2);
}

SeerGateForm of_own_heads(const HeadShare& share, SeerGateForm form) {
  form.heads = share.own(form.heads).size();
  form.kv_heads = share.own(form.kv_heads).size();
  return form;
}

SeerGateWeights of_own_heads(const HeadShare& share, SeerGateWeights weights) {
  weights.q = share.own(weights.q, 0);
  weights.k = share.own(weights.k, 0);
  return weights;
}

}  // namespace

// The gate over what a rank has of a row: tokens, and heads.
class ContextGate {
 public:
  ContextGate(const SeerGateForm& form, const SeerGateWeights& weights, RotaryEmbedding* rotary,
              Implementation implementation, const HeadShare& share)
      : share_(share),
        form_(of_own_heads(share, form)),
        weights_(of_own_heads(share, weights)),
        rotary_(rotary),
        implementation_(implementation),
        parts_(parts_of(*share.context())),
        rows_(gate_rows(share.context(), form)) {}

  const HeadShare& share() const { return share_; }
  const std::shared_ptr<const ContextGroup>& context() const { return share_.context(); }
  const SeerGateForm& form() const { return form_; }
  const std::vector<Part>& parts() const { return parts_; }

  // Of every part. The keys are fetched: called by all ranks.
  void read(const at::Tensor& plain_q, const at::Tensor& plain_k, const at::Tensor& own_positions) {
    const std::vector<at::Tensor> x = share_.all_to_heads({plain_q.detach(), plain_k.detach()});
    const Heads plain{x[0], x[1], {}};
    const at::Tensor positions = share_.positions(own_positions);
    std::vector<at::Tensor> keys{empty_keys(plain)};
    for (const Part& part : parts_) {
      queries_.push_back(seer_gate_queries(form_, weights_, of(part, plain.q), rotary_, of(part, positions),
                                           part.places, implementation_));
      keys.push_back(seer_gate_keys(form_, weights_, of(part, plain.k), rotary_, part.places, implementation_,
                                    part.places.offset / form_.block_size));
    }
    keys_ = fetch(rows_.exchange(), at::cat(keys, 1), "keys of the gate");
  }

  const at::Tensor& queries(size_t part) const { return queries_[part]; }
  at::Tensor keys(size_t part) const {
    const Interval seen = rows_.of(parts_[part].begin, parts_[part].end);
    return keys_.narrow(1, seen.begin, seen.size()).to(queries_[part].scalar_type());
  }
  // A zero that depends on the keys: ranks whose rows teach nothing have fetched as well.
  at::Tensor nothing() const { return keys_.narrow(1, 0, 0).sum(); }
  // Losses are means over heads.
  at::Tensor of_all_heads(const at::Tensor& loss) const { return loss * share_.fraction(); }

 private:
  // Of no block, and yet of the gate's weights: its gradient goes where that of others goes.
  at::Tensor empty_keys(const Heads& plain) const {
    SeerPlaces none;
    return seer_gate_keys(form_, weights_, plain.k.narrow(1, 0, 0), rotary_, none, implementation_);
  }

  const HeadShare& share_;
  const SeerGateForm form_;
  const SeerGateWeights weights_;
  RotaryEmbedding* rotary_;
  Implementation implementation_;
  std::vector<Part> parts_;
  StretchRows rows_;
  std::vector<at::Tensor> queries_;
  at::Tensor keys_;
};

namespace {

// Keys of whole documents, up to the end of each part: what the truth is made of. No gradient.
std::vector<at::Tensor> keys_of_parts(const std::shared_ptr<const ContextGroup>& context,
                                      const std::vector<Part>& parts, const at::Tensor& k) {
  const PieceKeys keys(context, history_of({}));
  const at::Tensor all = keys.exchange()->fetch(k.detach()[0].contiguous(), "keys of the truth").unsqueeze(0);
  std::vector<at::Tensor> of_parts;
  for (const Part& part : parts) {
    const Piece& piece = context->pieces()[part.piece];
    const int64_t first = piece.continued() ? 0 : part.begin - piece.begin;
    of_parts.push_back(all.narrow(1, keys.of(piece).begin + first, part.end - part.begin));
  }
  return of_parts;
}

}  // namespace

at::Tensor SeerAttention::context_distillation(const ContextGate& gate, const Heads& heads) const {
  const std::vector<at::Tensor> keys = keys_of_parts(gate.context(), gate.parts(), heads.k);
  at::Tensor loss = gate.nothing();
  for (size_t i = 0; i < gate.parts().size(); ++i) {
    const Part& part = gate.parts()[i];
    // Maxima do not depend on the values.
    loss = loss + seer_distillation_loss(gate.form(), of(part, heads.q), keys[i], keys[i], gate.queries(i),
                                         gate.keys(i), part.places, config_.loss_slice_ratio,
                                         site_.implementation);
  }
  return gate.of_all_heads(loss);
}

AttentionOutput SeerAttention::context_sparse(const ContextGate& gate, const Heads& heads,
                                              bool learning) const {
  const auto& context = gate.context();
  const std::vector<Part>& parts = gate.parts();
  std::vector<std::vector<at::Tensor>> chosen(context->pieces().size());
  for (size_t i = 0; i < parts.size(); ++i)
    chosen[parts[i].piece].push_back(seer_choose(gate.form(), rule_, gate.queries(i), gate.keys(i),
                                                 parts[i].places, site_.implementation));
  std::vector<BlockLists> lists;
  for (size_t p = 0; p < chosen.size(); ++p) {
    const at::Tensor bounds = cu_seqlens_of(context->pieces()[p]);
    lists.push_back({.indices = joined(chosen[p]).to(heads.q.device()),
                     .query_block = form_.query_block(),
                     .key_block = form_.block_size,
                     .cu_seqlens_q = bounds,
                     .cu_seqlens_k = bounds});
  }
  BlockAttentionOptions options;
  if (learning) options.statistics = BlockStatistics::per_list;
  const AttendedPieces attended = attend_blocks_in_context(
      context, heads, lists, form_.block_size, share_chosen_blocks(*context, lists, form_.block_size),
      block_operators(site_.implementation, options));
  AttentionOutput out{merge(gate.share().to_tokens(attended.o)), {}};
  if (!learning) return out;
  at::Tensor loss = gate.nothing();
  std::vector<int64_t> row(chosen.size(), 0);  // where the piece's next part begins
  for (size_t i = 0; i < parts.size(); ++i) {
    const at::Tensor& indices = lists[parts[i].piece].indices;
    const int64_t rows = gate.queries(i).size(1),
                  first = std::exchange(row[parts[i].piece], row[parts[i].piece] + rows);
    loss = loss + gate_loss(gate.form(), {gate.queries(i), gate.keys(i)},
                            attended.block_max[parts[i].piece].narrow(2, first, rows),
                            indices.narrow(2, first, rows), parts[i].places);
  }
  out.losses.emplace_back("gate", gate.of_all_heads(loss));
  return out;
}

AttentionOutput SeerAttention::forward_context(const Heads& plain, const Heads& heads, const Batch& batch) {
  check<ConfigError>(!trial_ && !maps_, "seer: other choices of blocks are tried on one rank");
  const HeadShare share(batch.context, site_.num_kv_heads, *this, heads.q.scalar_type());
  const Heads own = share.to_heads(heads);
  const bool distils = config_.mode == "distill" && is_training();
  const auto dense = [&] {
    return merge(share.to_tokens(attend_in_context(share.context(), own, {}, site_.implementation)));
  };
  if (config_.mode == "dense") return {dense(), {}};
  const bool learning = distils || (config_.mode == "sparse" && config_.gate_loss && is_training());
  ContextGate gate(form_, gate_->weights(), gate_rotary_.get(), site_.implementation, share);
  {
    const at::AutoGradMode tape(learning && at::GradMode::is_enabled());
    gate.read(plain.q, plain.k, batch.positions);
  }
  if (!distils) return context_sparse(gate, own, learning);
  AttentionOutput out{dense(), {}};
  out.losses.emplace_back("gate", context_distillation(gate, own));
  return out;
}

PlannedTraffic SeerAttention::planned_traffic(const std::shared_ptr<const ContextGroup>& ranks,
                                              at::ScalarType dtype) const {
  const HeadShare share(ranks, site_.num_kv_heads, *this, dtype);
  const auto& context = share.context();
  PlannedTraffic plan;
  plan_heads(plan, share, site_);
  const int64_t numbers = 2 * share.own(site_.num_kv_heads).size() * site_.head_dim;
  const bool distils = config_.mode == "distill";
  if (config_.mode != "dense") {
    share.plan_to_heads(plan, (site_.num_heads / site_.num_kv_heads + 1) * site_.head_dim, false);
    plan_fetched(plan, "keys of the gate", gate_rows(context, form_),
                 share.own(form_.single() ? form_.heads : form_.kv_heads).size() * form_.hidden, dtype,
                 distils || config_.gate_loss);
  }
  if (config_.mode == "sparse") {
    plan_chosen_blocks(plan, context, form_.block_size, numbers, dtype);
    return plan;
  }
  const PieceKeys keys(context, history_of({}));
  plan_keys(plan, keys, numbers, dtype);
  if (distils) plan_fetched(plan, "keys of the truth", keys, numbers / 2, dtype, false);
  return plan;
}

}  // namespace longreach::seer
