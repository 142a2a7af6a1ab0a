// Other choices of blocks on the same model, counts, and maps.
#include "layers/attention/common/taught_gates.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>

#include "layers/attention/seer/documents.h"
#include "layers/attention/seer/module.h"
#include "layers/basic/initialization.h"
#include "layers/ops/common/packed_documents.h"

namespace longreach {
namespace seer {
namespace {

// Newer blocks score higher; the first one most of all.
at::Tensor window_scores(int64_t blocks, at::IntArrayRef shape) {
  at::Tensor scores = at::arange(blocks, at::kFloat);
  scores[0].fill_(static_cast<double>(blocks));
  return scores.expand(shape);
}

}  // namespace

at::Tensor SeerAttention::true_maxima(const Heads& heads, const SeerPlaces& places) const {
  return seer_block_max_by(site_.implementation, form_, heads.q.detach(), heads.k.detach(), places);
}

at::Tensor SeerAttention::trial_blocks(const Features& gate, const Heads& heads,
                                       const SeerPlaces& places) const {
  const at::NoGradGuard no_grad;
  const SeerRule rule{.density = trial_->density};
  if (trial_->policy == GatePolicy::gate)
    return seer_choose(form_, rule, gate.q, gate.k, places, site_.implementation);
  if (trial_->policy == GatePolicy::oracle)
    return seer_choose_from(form_, rule, true_maxima(heads, places), places);
  const int64_t blocks = most_blocks(seer_documents(form_, places), form_.block_size);
  const std::vector<int64_t> shape{gate.q.size(0), form_.map_heads(), gate.q.size(1), blocks};
  if (trial_->policy == GatePolicy::window)
    return seer_choose_from(form_, rule, window_scores(blocks, shape), places);
  at::Tensor scores = at::empty(shape, at::kFloat);
  scores.uniform_(0, 1,
                  at::detail::createCPUGenerator(derive_seed(trial_->seed, std::to_string(site_.layer))));
  return seer_choose_from(form_, rule, scores, places);
}

void SeerAttention::count(const at::Tensor& indices, const SeerPlaces& places) {
  const int64_t maps = indices.size(0) * indices.size(1);
  count_.chosen += (indices >= 0).sum().item<int64_t>();
  count_.causal += maps * (seer_own_blocks(form_, places) + 1).sum().item<int64_t>();
}

GateCount SeerAttention::take_count() { return std::exchange(count_, {}); }

void SeerAttention::leave_maps(const Features& gate, const Heads& heads, const at::Tensor& indices,
                               const SeerPlaces& places) {
  const at::NoGradGuard no_grad;
  const at::Tensor logits = seer_gate_logits(form_, gate.q, gate.k, places),
                   all = seer_all_blocks(form_, places);
  maps_->scores = logits.softmax(-1)[0];
  maps_->truth = seer_gate_target(form_, true_maxima(heads, places), all, places)[0];
  maps_->chosen = seer_block_map(indices, logits.size(3))[0];
  maps_ = nullptr;
}

}  // namespace seer

}  // namespace longreach
