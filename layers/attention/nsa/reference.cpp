// Native sparse attention from its formulae: any floating dtype, document by document, whole score matrices.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "layers/attention/nsa/block_counts.h"
#include "layers/attention/nsa/documents.h"
#include "layers/ops/common/masked_attention.h"

namespace longreach {
namespace nsa {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Choice {
  at::Tensor indices, scores;  // [B, Hl, T, S], [B, Hl, T, blocks]
};

// What each query sees of `keys` keys: bool [queries, keys], query i the keys first(p) <= j < end(p).
template <class First, class End>
at::Tensor visible_keys(const PackedDocument& document, int64_t keys, First first, End end) {
  const at::Tensor visible = at::zeros({document.queries, keys}, at::kBool);
  for (int64_t row = 0; row < document.queries; ++row) {
    const int64_t position = document.position(row), begin = std::max<int64_t>(first(position), 0);
    const int64_t count = std::min(end(position), keys) - begin;
    if (count > 0) visible.select(0, row).narrow(0, begin, count).fill_(true);
  }
  return visible;
}

at::Tensor logits(const at::Tensor& q, const at::Tensor& k, double scale) {
  const at::Tensor keys = k.repeat_interleave(q.size(2) / k.size(2), 2).transpose(1, 2);
  const auto wide = q.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  return q.transpose(1, 2).matmul(keys.transpose(-1, -2)).to(wide) * scale;  // [B, H, T, M]
}

// Tokens that window (row) and block (column) share, over the stride.
at::Tensor overlaps(const NsaOptions& options, int64_t windows, int64_t blocks,
                    const at::TensorOptions& like) {
  const at::Tensor weights = at::zeros({windows, blocks}, at::TensorOptions(at::kDouble));
  for (int64_t i = 0; i < windows; ++i) {
    for (int64_t j = 0; j < blocks; ++j) {
      const int64_t begin = std::max(i * options.compress_stride, j * options.block_size);
      const int64_t end =
          std::min(i * options.compress_stride + options.compress_block, (j + 1) * options.block_size);
      if (end > begin)
        weights.mutable_data_ptr<double>()[i * blocks + j] =
            static_cast<double>(end - begin) / static_cast<double>(options.compress_stride);
    }
  }
  return weights.to(like.dtype());
}

// The best n of the candidates (counts [B, Hl, T, 1], if defined: of each row), ties to the lowest, in
// ascending order; -1 pads.
at::Tensor best(const at::Tensor& scores, const at::Tensor& candidates, int64_t n, const at::Tensor& counts) {
  const at::Tensor ranked = scores.masked_fill(candidates.logical_not(), -kInfinity);
  const at::Tensor order = std::get<1>(at::sort(ranked, /*stable=*/true, /*dim=*/-1, /*descending=*/true));
  const int64_t blocks = order.size(-1), count = std::min(n, blocks);
  const at::Tensor first = order.narrow(-1, 0, count);
  at::Tensor absent = candidates.expand_as(scores).gather(-1, first).logical_not();
  if (counts.defined()) absent = absent.logical_or(at::arange(count, at::kLong) >= counts);
  const at::Tensor sorted = std::get<0>(first.masked_fill(absent, blocks).sort(-1));
  return at::constant_pad_nd(sorted.masked_fill(sorted == blocks, -1), {0, n - count}, -1).to(at::kInt);
}

at::Tensor counts_of(const CountedInput& in) {
  return in.block_counts.defined() ? counts_by_list(in) : at::Tensor();
}

Choice choose(const CountedInput& in, const NsaOptions& options, const PackedDocument& document,
              const at::Tensor& all, int64_t lists) {
  const int64_t blocks = document.blocks(options.block_size), windows = in.k_cmp.size(1);
  const at::Tensor seen = visible_keys(
      document, windows, [](int64_t) { return 0; },
      [&](int64_t position) { return visible_windows(options, position, windows); });
  // The softmax of a row that sees nothing is NaN and masked off with the rest.
  at::Tensor p =
      all.masked_fill(seen.logical_not(), -kInfinity).softmax(-1).masked_fill(seen.logical_not(), 0.0);
  p = p.unflatten(1, {lists, -1});
  p = options.vote == BlockScores::Vote::mean  ? p.mean(2)
      : options.vote == BlockScores::Vote::sum ? p.sum(2)
                                               : std::get<0>(p.max(2));
  const at::Tensor scores = p.matmul(overlaps(options, windows, blocks, p.options()));
  const auto own = [&](int64_t position) { return position / options.block_size; };
  const at::Tensor candidates = visible_keys(
      document, blocks, [](int64_t) { return 0; }, [&](int64_t p) { return own(p) + 1; });
  const at::Tensor forced =
      visible_keys(
          document, blocks, [&](int64_t p) { return own(p) + 1 - options.latest_blocks; },
          [&](int64_t p) { return own(p) + 1; })
          .logical_or(at::arange(blocks, at::kLong) < options.first_blocks);
  const at::Tensor ranked = scores.masked_fill(forced, kInfinity);
  return {best(ranked, candidates, options.num_blocks, counts_of(in)),
          scores.masked_fill(candidates.logical_not(), -kInfinity)};
}

Choice choose_by_mean_logit(const CountedInput& in, const NsaOptions& options, const PackedDocument& document,
                            const at::Tensor& all, int64_t lists) {
  const int64_t ratio = options.block_size / options.compress_stride, full = in.k_cmp.size(1) / ratio;
  const int64_t blocks = document.blocks(options.block_size);
  const at::Tensor logit =
      all.unflatten(1, {lists, -1}).mean(2).narrow(-1, 0, full * ratio).unflatten(-1, {full, ratio}).mean(-1);
  const at::Tensor past = visible_keys(
      document, full, [](int64_t) { return 0; },
      [&](int64_t position) { return position / options.block_size; });
  const at::Tensor nothing = at::full({logit.size(0), lists, document.queries, 1}, -1e3, logit.options());
  const at::Tensor masked = logit.masked_fill(past.logical_not(), -kInfinity);
  const at::Tensor value = at::cat({nothing, masked}, -1).softmax(-1).narrow(-1, 1, full);
  const at::Tensor chosen = best(value, past.logical_and(value > 1e-10), options.num_blocks, counts_of(in));
  const at::Tensor own = at::arange(document.position(0), document.keys, at::kInt)
                             .div(options.block_size, "floor")
                             .view({1, 1, -1, 1})
                             .expand({chosen.size(0), lists, -1, 1});
  return {at::cat({chosen, own}, -1), at::constant_pad_nd(value, {0, blocks - full}, 0.0)};
}

// bool [B, Hl, T, keys]: keys of the listed blocks up to the query itself.
at::Tensor listed_keys(const at::Tensor& indices, const NsaOptions& options, const PackedDocument& document) {
  const int64_t blocks = document.blocks(options.block_size);
  const at::Tensor rows = indices.to(at::kLong);
  at::Tensor listed = at::zeros({rows.size(0), rows.size(1), rows.size(2), blocks + 1}, at::kBool);
  listed.scatter_(3, at::where(rows < 0, at::full({}, blocks, rows.options()), rows), true);
  const at::Tensor causal = visible_keys(
      document, document.keys, [](int64_t) { return 0; }, [](int64_t position) { return position + 1; });
  return listed.narrow(3, 0, blocks)
      .repeat_interleave(options.block_size, 3)
      .narrow(3, 0, document.keys)
      .logical_and(causal);
}

NsaOutput attend_document(const CountedInput& in, const NsaOptions& options) {
  const PackedDocument document{.queries = in.q.size(1), .keys = in.k.size(1), .windows = in.k_cmp.size(1)};
  const int64_t heads = in.q.size(2), slots = in.memory_k.defined() ? in.memory_k.size(1) : 0;
  const double scale = options.scale.value_or(1.0 / std::sqrt(static_cast<double>(in.q.size(3))));
  const at::Tensor q_cmp = in.q_cmp.defined() ? in.q_cmp : in.q;
  const auto remembering = [&](const at::Tensor& windows, const at::Tensor& memory) {
    if (!memory.defined()) return windows;
    const at::Tensor slot = memory.transpose(0, 1).unsqueeze(0).to(windows.scalar_type());
    return at::cat({slot.expand({windows.size(0), -1, -1, -1}), windows}, 1);
  };
  const at::Tensor seen = visible_keys(
      document, slots + document.windows, [](int64_t) { return 0; },
      [&](int64_t position) { return slots + visible_windows(options, position, document.windows); });
  const MaskedAttention compressed = masked_attention(q_cmp, remembering(in.k_cmp, in.memory_k),
                                                      remembering(in.v_cmp, in.memory_v), seen, scale);
  const int64_t lists = options.shared_selection ? in.k.size(2) : heads;
  Choice choice;
  {
    const at::NoGradGuard no_grad;
    const at::Tensor all = logits(q_cmp, in.k_cmp, scale);
    choice = options.form == NsaForm::lucidrains ? choose_by_mean_logit(in, options, document, all, lists)
                                                 : choose(in, options, document, all, lists);
  }
  const at::Tensor listed =
      listed_keys(choice.indices, options, document).repeat_interleave(heads / lists, 1);
  const at::Tensor window = visible_keys(
      document, document.keys, [&](int64_t position) { return position + 1 - options.window; },
      [](int64_t position) { return position + 1; });
  NsaOutput out{.o_cmp = compressed.o,
                .o_slc = masked_attention(in.q, in.k, in.v, listed, scale).o,
                .o_win = masked_attention(in.q, in.k, in.v, window, scale).o,
                .lse_cmp = compressed.lse,
                .block_indices = choice.indices,
                .block_scores = choice.scores};
  add_branches(in.gate, out);
  return out;
}

// Documents along time; narrower lists and maps are filled with `fill`.
at::Tensor join(const std::vector<NsaOutput>& parts, at::Tensor NsaOutput::*member, int64_t time,
                double fill) {
  std::vector<at::Tensor> tensors;
  int64_t widest = 0;
  for (const NsaOutput& part : parts) widest = std::max(widest, (part.*member).size(-1));
  for (const NsaOutput& part : parts) {
    const at::Tensor& tensor = part.*member;
    tensors.push_back(std::isnan(fill) ? tensor
                                       : at::constant_pad_nd(tensor, {0, widest - tensor.size(-1)}, fill));
  }
  return at::cat(tensors, time);
}

NsaOutput attend_reference(const CountedInput& in, const NsaOptions& given, bool keep_scores) {
  check_input(in, given);
  const NsaOptions options = with_largest_count(given, in);
  const double none = std::numeric_limits<double>::quiet_NaN();
  std::vector<NsaOutput> parts;
  for (const PackedDocument& document : documents(in, options)) {
    const auto piece = [](const at::Tensor& x, int64_t first, int64_t count) {
      return x.defined() ? x.narrow(1, first, count) : x;
    };
    const auto queries = [&](const at::Tensor& x) { return piece(x, document.query, document.queries); };
    const auto keys = [&](const at::Tensor& x) { return piece(x, document.key, document.keys); };
    const auto windows = [&](const at::Tensor& x) { return piece(x, document.window, document.windows); };
    parts.push_back(attend_document({{.q = queries(in.q),
                                      .k = keys(in.k),
                                      .v = keys(in.v),
                                      .gate = queries(in.gate),
                                      .q_cmp = queries(in.q_cmp),
                                      .k_cmp = windows(in.k_cmp),
                                      .v_cmp = windows(in.v_cmp),
                                      .memory_k = in.memory_k,
                                      .memory_v = in.memory_v},
                                     queries(in.block_counts)},
                                    options));
  }
  NsaOutput out;
  for (at::Tensor NsaOutput::*member :
       {&NsaOutput::o, &NsaOutput::o_cmp, &NsaOutput::o_slc, &NsaOutput::o_win})
    out.*member = join(parts, member, 1, none);
  out.lse_cmp = join(parts, &NsaOutput::lse_cmp, 2, none);
  out.block_indices = join(parts, &NsaOutput::block_indices, 2, -1);
  if (keep_scores) {
    const double absent =
        options.form == NsaForm::lucidrains ? 0.0 : -std::numeric_limits<double>::infinity();
    out.block_scores = join(parts, &NsaOutput::block_scores, 2, absent);
  }
  return out;
}

}  // namespace
}  // namespace nsa

NsaOutput nsa_attention_reference(const NsaInput& in, const NsaOptions& options, bool keep_scores) {
  return nsa::attend_reference({in, {}}, options, keep_scores);
}

NsaOutput nsa_attention_reference(const NsaInput& in, const at::Tensor& block_counts,
                                  const NsaOptions& options, bool keep_scores) {
  return nsa::attend_reference({in, block_counts}, options, keep_scores);
}

}  // namespace longreach
