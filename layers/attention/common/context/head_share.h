// Heads of a layer shared out among neighbouring ranks (DeepSpeed-Ulysses, arXiv 2309.14509): each gets all
// tokens of its neighbours for some of the heads, and gives back what came of them. Between groups of
// neighbours tokens are fetched as they are between ranks.
#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "distributed/context_group.h"
#include "layers/attention/common/softmax_attention.h"
#include "layers/attention/planned_traffic.h"

namespace longreach {

class HeadExchange;

// How one layer goes through a row that ranks share. Where its heads are not shared out, tensors pass as they
// are: a mechanism has one path for both.
class HeadShare {
 public:
  // kv_heads: of the layer, at least as many as there are neighbours; heads of queries are shared out with
  // the kv heads that they read. By the method of the group; where it is automatic, `layer` says what each
  // way would send of x in `dtype`, and the one with the fewest bytes of all ranks is taken (of more than
  // eight: of eight). The same on all ranks.
  HeadShare(std::shared_ptr<const ContextGroup> context, int64_t kv_heads, const TrafficPlanner& layer,
            at::ScalarType dtype);

  // Between whom tokens are fetched, and which of them are this rank's while heads are shared out.
  const std::shared_ptr<const ContextGroup>& context() const { return context_; }

  // Which of a layer's `heads` are this rank's: the one for all heads, or some of a multiple of the kv heads.
  Interval own(int64_t heads) const;
  // This rank's part of what a layer has for its heads along `dim`: parameters, lists. Differentiable;
  // undefined stays so.
  at::Tensor own(const at::Tensor& of_heads, int64_t dim) const;
  // Its share of all heads.
  double fraction() const;
  // Positions int64 [1, n] of own tokens -> [1, N], those of context().
  at::Tensor positions(const at::Tensor& own) const;

  // Each [1, n, heads, size] of own tokens, heads a multiple of the kv heads -> [1, N, own heads, size], the
  // tokens of context() in the row's order. One exchange; differentiable; one dtype. Called by all ranks.
  std::vector<at::Tensor> all_to_heads(const std::vector<at::Tensor>& x) const;
  Heads to_heads(const Heads& heads) const;
  // The way back: o [1, N, own heads, size] -> [1, n, heads, size].
  at::Tensor to_tokens(const at::Tensor& o) const;

  // What these send, of so many numbers of a token and kv head; gradients: in a backward pass as well.
  void plan_to_heads(PlannedTraffic& plan, int64_t numbers, bool gradients = true) const;
  void plan_to_tokens(PlannedTraffic& plan, int64_t numbers) const;

 private:
  std::shared_ptr<const ContextGroup> context_;
  int64_t kv_heads_;
  at::ScalarType dtype_;
  std::shared_ptr<const HeadExchange> exchange_;  // null: heads are not shared out
};

}  // namespace longreach
