// One sequence over several ranks. Windows of compression belong to whom their last token belongs to, who
// fetches the tokens before; compressed keys come from all; then the chosen blocks, and the window.
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>

#include <algorithm>

#include "layers/attention/common/context/chosen_blocks.h"
#include "layers/attention/common/context/head_share.h"
#include "layers/attention/common/context/places.h"
#include "layers/attention/common/context/planned_rows.h"
#include "layers/attention/common/context/stretch_rows.h"
#include "layers/attention/nsa/branches.h"
#include "layers/attention/nsa/module.h"
#include "layers/ops/common/packed_documents.h"

namespace longreach::nsa {
namespace {

// Windows that the first `tokens` tokens of a document complete.
int64_t windows_within(const NsaOptions& options, int64_t tokens) {
  return window_count(nsa_windows(options), tokens);
}

// Where, counted within the document, the windows that a continued piece completes begin to have tokens: at a
// stride.
int64_t first_token(const NsaOptions& options, const Piece& piece) {
  const int64_t lead = options.compress_block - options.compress_stride;
  return std::max<int64_t>(piece.before() - lead, 0) / options.compress_stride * options.compress_stride;
}

bool overlapping(const NsaOptions& options) { return options.compress_block > options.compress_stride; }

// What windows that straddle a border need of the tokens before it.
PieceKeys tokens_of_windows(const std::shared_ptr<const ContextGroup>& context, const NsaOptions& options) {
  return {context, [options](int, const Piece& piece) {
            return std::vector<Interval>{{piece.history_begin + first_token(options, piece), piece.begin}};
          }};
}

StretchRows rows_of_windows(const std::shared_ptr<const ContextGroup>& context, const NsaOptions& options) {
  return {context, [options](int64_t tokens) { return windows_within(options, tokens); }};
}

// Operators of lists of blocks for which block_attention has no tiles.
OperatorOf small_block_operators(Implementation implementation, const NsaOptions& options) {
  return [=](const BlockLists& lists) {
    return softmax_operator([=](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
      const auto documents =
          packed_documents(lists.cu_seqlens_q, lists.cu_seqlens_k, q.size(1), k.size(1), 1);
      const IntervalAttentionOutput out =
          attend_small_blocks(implementation, {.q = q, .k = k, .v = v}, lists.indices, options, documents);
      return SoftmaxOperator::Output{out.o, out.lse, {}};
    });
  };
}

NsaCompression of_own_heads(const HeadShare& share, NsaCompression phi) {
  if (phi.kind == "weighted" || phi.kind == "linear") phi.weight = share.own(phi.weight, 0);
  phi.positions = share.own(phi.positions, 0);
  return phi;
}

// The compressed branch and the lists of one piece. The reference computes the other branches as well, of
// keys that are none.
Chosen chosen_by(Implementation implementation, const NsaInput& in, const NsaOptions& options) {
  if (implementation == Implementation::fused)
    return compress_and_choose(in, options, documents(in, options), false);
  const NsaOutput out = nsa_attention_reference(in, options);
  return {out.o_cmp, out.lse_cmp, {out.block_indices, {}}};
}

}  // namespace

// What the branches read, of this rank's heads. Of what is before the rotary embedding phi reads keys, but
// where it reads them after it, and lucidrains' form queries.
NsaAttention::OwnHeads NsaAttention::own_heads(const HeadShare& share, const Tokens& all,
                                               const at::Tensor& gate) const {
  const bool plain_q = reads_plain_queries(), plain_k = !compress_turned_;
  std::vector<at::Tensor> x{all.turned.q, all.turned.k, all.plain.v,
                            gate.expand({-1, -1, site_.num_heads, -1})};
  if (plain_q) x.push_back(all.plain.q);
  if (plain_k) x.push_back(all.plain.k);
  const std::vector<at::Tensor> own = share.all_to_heads(x);
  OwnHeads heads{{.plain = {{}, {}, own[2]}, .turned = {own[0], own[1], own[2]}}, own[3]};
  if (plain_q) heads.of.plain.q = own[4];
  if (plain_k) heads.of.plain.k = own.back();
  return heads;
}

// Keys and values of own windows side by side, [1, M, HK, 2 D], before the positions of windows.
at::Tensor NsaAttention::own_windows(const at::Tensor& k, const at::Tensor& v, const HeadShare& share) const {
  const auto& context = share.context();
  const NsaCompression phi_k = of_own_heads(share, key_phi()), phi_v = of_own_heads(share, value_phi());
  const int64_t size = site_.head_dim;
  const at::Tensor own = at::cat({k, v}, 3);
  std::optional<PieceKeys> tokens;
  if (overlapping(options_)) tokens = tokens_of_windows(context, options_);
  const at::Tensor all = tokens ? fetch(tokens->exchange(), own, "tokens of windows") : own;
  // Ranks without tokens have fetched as well.
  std::vector<at::Tensor> parts{all.narrow(1, 0, 0).to(k.scalar_type())};
  for (const Piece& piece : context->pieces()) {
    const int64_t end = tokens ? tokens->of(piece).end : piece.local + piece.tokens;
    int64_t lead = 0, dropped = 0;
    if (piece.continued()) {
      const int64_t first = first_token(options_, piece);
      lead = piece.before() - first;
      dropped = windows_within(options_, piece.before()) - first / options_.compress_stride;
    }
    const at::Tensor seen = all.narrow(1, end - piece.tokens - lead, piece.tokens + lead).to(k.scalar_type());
    const auto compressed = [&](int64_t part, const NsaCompression& phi) {
      return nsa_compress(seen.narrow(3, part * size, size), phi, options_, cu_seqlens_of(piece));
    };
    const at::Tensor windows = at::cat({compressed(0, phi_k), compressed(1, phi_v)}, 3);
    parts.push_back(windows.slice(1, std::max<int64_t>(dropped, 0)));
  }
  return at::cat(parts, 1);
}

// Keys of own windows with the positions of windows, where the form says so.
at::Tensor NsaAttention::placed_windows(const at::Tensor& k_cmp, const ContextGroup& context) const {
  if (compress_turned_ || options_.form == NsaForm::lucidrains) return k_cmp;
  std::vector<at::Tensor> positions{at::arange(0, at::kLong)}, tokens = positions;
  const auto add = [&](int64_t document, int64_t first, int64_t end) {
    positions.push_back(at::arange(first, std::max(first, end), at::kLong) * options_.compress_stride);
    tokens.push_back(positions.back() + document);
  };
  for (const Piece& piece : context.pieces()) {
    if (piece.continued())
      add(piece.history_begin, windows_within(options_, piece.before()),
          windows_within(options_, piece.before() + piece.tokens));
    for (size_t i = 0; i + 1 < piece.cu_seqlens.size(); ++i)
      add(piece.begin + piece.cu_seqlens[i], 0,
          windows_within(options_, piece.cu_seqlens[i + 1] - piece.cu_seqlens[i]));
  }
  return turn(k_cmp, rotation_in(context, at::cat(positions).unsqueeze(0), at::cat(tokens), k_cmp));
}

// windows: of the piece's documents, keys and values side by side. Keys and values of tokens are none, as the
// choice reads how many there are and no more.
NsaInput NsaAttention::of_piece(const Piece& piece, const Heads& turned, const at::Tensor& plain_q,
                                const at::Tensor& windows, const HeadShare& share) const {
  const int64_t size = site_.head_dim, kv_heads = turned.k.size(2);
  const at::Tensor none = at::empty({1, 1, kv_heads, size}, turned.k.options())
                              .zero_()
                              .expand({1, piece.before() + piece.tokens, kv_heads, size});
  NsaInput in{.q = turned.q.narrow(1, piece.local, piece.tokens), .k = none, .v = none};
  if (reads_plain_queries()) in.q_cmp = plain_q.narrow(1, piece.local, piece.tokens);
  in.k_cmp = windows.narrow(3, 0, size);
  in.v_cmp = windows.narrow(3, size, size);
  in.cu_seqlens = cu_seqlens_of(piece);
  set_memory(in);
  in.memory_k = share.own(in.memory_k, 0);
  in.memory_v = share.own(in.memory_v, 0);
  return in;
}

at::Tensor NsaAttention::forward_context(const at::Tensor& x, const Batch& batch) const {
  const HeadShare share(batch.context, site_.num_kv_heads, *this, x.scalar_type());
  const auto& context = share.context();
  const Heads all = split_heads(x);
  const Rotation rotation = rotation_of(batch, all.q);
  const auto [of, gates] =
      own_heads(share, {all, {turn(all.q, rotation), turn(all.k, rotation), all.v}}, gate(x));
  const auto& [plain, turned] = of;
  const at::Tensor own = own_windows(compress_turned_ ? turned.k : plain.k, plain.v, share);
  const int64_t size = site_.head_dim;
  const StretchRows rows = rows_of_windows(context, options_);
  const at::Tensor windows =
      fetch(rows.exchange(),
            at::cat({placed_windows(own.narrow(3, 0, size), *context), own.narrow(3, size, size)}, 3),
            "compressed keys");

  // Ranks without tokens have fetched as well.
  std::vector<at::Tensor> o_cmp{windows.narrow(1, 0, 0)
                                    .narrow(3, size, size)
                                    .repeat_interleave(site_.num_heads / site_.num_kv_heads, 2)
                                    .to(turned.q.scalar_type())};
  std::vector<BlockLists> lists;
  for (const Piece& piece : context->pieces()) {
    const Interval seen = rows.of(piece);
    const Chosen chosen =
        chosen_by(site_.implementation,
                  of_piece(piece, turned, plain.q,
                           windows.narrow(1, seen.begin, seen.size()).to(turned.q.scalar_type()), share),
                  options_);
    o_cmp.push_back(chosen.o_cmp);
    lists.push_back({.indices = chosen.selection.indices,
                     .query_block = 1,
                     .key_block = options_.block_size,
                     .cu_seqlens_q = cu_seqlens_of(piece),
                     .cu_seqlens_k = cu_seqlens_of(piece)});
  }
  NsaOutput out{.o_cmp = at::cat(o_cmp, 1)};
  const BlocksOf blocks = share_chosen_blocks(*context, lists, options_.block_size);
  const OperatorOf operators = has_block_tiles(options_.block_size)
                                   ? block_operators(site_.implementation, {.scale = options_.scale})
                                   : small_block_operators(site_.implementation, options_);
  out.o_slc = attend_blocks_in_context(context, turned, lists, options_.block_size, blocks, operators).o;
  out.o_win = attend_in_context(context, turned, {.window = options_.window}, site_.implementation);
  add_branches(gates, out);
  return merge(share.to_tokens(out.o));
}

PlannedTraffic NsaAttention::planned_traffic(const std::shared_ptr<const ContextGroup>& ranks,
                                             at::ScalarType dtype) const {
  const HeadShare share(ranks, site_.num_kv_heads, *this, dtype);
  const auto& context = share.context();
  const int64_t numbers = 2 * share.own(site_.num_kv_heads).size() * site_.head_dim,
                group = site_.num_heads / site_.num_kv_heads;
  PlannedTraffic plan;
  // Gates beside q, k and v, and what own_heads adds.
  const int64_t plain_heads = (reads_plain_queries() ? group : 0) + (compress_turned_ ? 0 : 1);
  share.plan_to_heads(plan, (group + 2 + plain_heads) * site_.head_dim + 3 * group);
  share.plan_to_tokens(plan, group * site_.head_dim);
  if (overlapping(options_))
    plan_fetched(plan, "tokens of windows", tokens_of_windows(context, options_), numbers, dtype, true);
  plan_fetched(plan, "compressed keys", rows_of_windows(context, options_), numbers, dtype, true);
  plan_chosen_blocks(plan, context, options_.block_size, numbers, dtype);
  plan_keys(plan, {context, history_of({.window = options_.window})}, numbers, dtype);
  return plan;
}

}  // namespace longreach::nsa
