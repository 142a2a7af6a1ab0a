// Cases of interval attention: LongLoRA's shifted groups.
#include <ATen/ops/arange.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>

#include "layers/ops/interval_attention/interval_attention.h"
#include "train/verify/case.h"
#include "train/verify/operators.h"

namespace longreach::verify {
namespace {

// LongLoRA's groups for n tokens as lo [1, H, n]: the first half of the heads in groups of `group`, the
// second half in groups shifted by half of one, the first of which is half as long.
IntervalMask shifted_groups(int64_t tokens, int64_t heads, int64_t group) {
  const at::Tensor at = at::arange(tokens, at::kLong), plain = at.div(group, "floor").mul(group);
  const int64_t half = group / 2;
  const at::Tensor shifted = at.sub(half).div(group, "floor").mul(group).add(half).clamp_min(0);
  std::vector<at::Tensor> lo;
  for (int64_t head = 0; head < heads; ++head) lo.push_back(head < heads / 2 ? plain : shifted);
  IntervalMask mask;
  mask.lo = at::stack(lo).unsqueeze(0).to(at::kInt).contiguous();
  mask.hi = at.add(1).expand({1, heads, tokens}).to(at::kInt).contiguous();
  return mask;
}

}  // namespace

IntervalAttentionOutput attend(const Case& run, const Qkv& in, const IntervalMask& mask, double scale) {
  return interval_attention_by(run.implementation, in.q, in.k, in.v, mask, scale);
}

IntervalMask interval(const at::Tensor& lo, const at::Tensor& hi) {
  IntervalMask mask;
  mask.lo = lo.view({1, -1, lo.size(-1)}).to(at::kInt).contiguous();
  mask.hi = hi.view({1, -1, hi.size(-1)}).to(at::kInt).contiguous();
  return mask;
}

void verify_longlora(Case& run) {
  const VectorFile& file = run.file;
  const std::string variant = file.word("variant");
  if ((variant != "noroll" && variant != "sft") || !run.has("in.q"))
    run.refuse("config of `longlora`: variant `", variant, "`, known: operators of noroll, sft");
  const Qkv in = read_qkv(run);
  const int64_t batch = in.q.size(0), tokens = in.q.size(1), heads = in.q.size(2),
                group = file.integer("group_size");
  if (group < 2) run.refuse("group_size ", group, ", allowed: at least 2");
  const double scale = run.file.scale(in.q.size(3));
  if (!run.has("in.padding_mask"))
    return run.produce_sequence("o", attend(run, in, shifted_groups(tokens, heads, group), scale).o);
  // Groups count the valid tokens of a row; padded tokens take no part and get zero.
  const at::Tensor valid = run.integers("in.padding_mask");
  std::vector<at::Tensor> rows;
  for (int64_t row = 0; row < batch; ++row) {
    const at::Tensor where = valid[row].nonzero().flatten();
    const auto pick = [&](const at::Tensor& x) { return x.narrow(0, row, 1).index_select(1, where); };
    const IntervalAttentionOutput out =
        attend(run, {pick(in.q), pick(in.k), pick(in.v)}, shifted_groups(where.numel(), heads, group), scale);
    rows.push_back(
        at::zeros({tokens, heads, out.o.size(-1)}, out.o.options()).index_copy(0, where, out.o[0]));
  }
  run.produce_sequence("o", at::stack(rows));
}

}  // namespace longreach::verify
