// Cases of a window with attention sinks, under every convention of positions.
#include <ATen/ops/arange.h>
#include <ATen/ops/zeros_like.h>

#include "layers/attention/sliding/sliding.h"
#include "layers/basic/rope.h"
#include "layers/ops/interval_attention/interval_attention.h"
#include "train/verify/case.h"
#include "train/verify/operators.h"

namespace longreach {
namespace {

using verify::attend;
using verify::Case;
using verify::interval;
using verify::Qkv;
using Output = IntervalAttentionOutput;

class Rotor {
 public:
  Rotor(const Case& run, int64_t head_dim, int64_t tokens)
      : embedding_({.theta = run.file.real("rope_theta")}, head_dim, tokens) {}
  // x [B, T, H, D] turned to positions [T].
  at::Tensor operator()(const at::Tensor& x, const at::Tensor& positions) {
    const at::ScalarType dtype = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    return rotate(x, embedding_.at(positions.view({1, -1}).expand({x.size(0), -1}), dtype));
  }

 private:
  RotaryEmbedding embedding_;
};

// StreamingLLM: positions count inside the cache of S sinks and W recent keys, so that a sink is never
// further than S + W - 1. The window's distances are the usual ones; for the sinks the query stands at min(t,
// S + W - 1).
Output cache_positions(const Case& run, const Qkv& in, int64_t sinks, int64_t window, double scale) {
  const int64_t tokens = in.q.size(1);
  const at::Tensor at = at::arange(tokens, at::kLong);
  Rotor rotor(run, in.q.size(-1), tokens);
  const at::Tensor k = rotor(in.k, at);
  const at::Tensor after_sinks = at.sub(window - 1).clamp_min(sinks), next = at.add(1);
  const Output recent =
      attend(run, {rotor(in.q, at), k, in.v}, interval(after_sinks.minimum(next), next), scale);
  const at::Tensor near = rotor(in.q, at.clamp_max(sinks + window - 1));
  const Output first =
      attend(run, {near, k, in.v}, interval(at::zeros_like(at), next.clamp_max(sinks)), scale);
  return verify::merge(run, {first, recent});
}

}  // namespace

void SlidingConfig::verify(Case& run) {
  const std::string positions = run.file.word("positions");
  const int64_t sinks = run.file.integer("sink_size"), window = run.file.integer("recent_size");
  Qkv in = read_qkv(run);
  const int64_t tokens = in.q.size(1);
  const double scale = run.file.scale(in.q.size(3));
  const IntervalMask mask{.window = window, .sinks = sinks};
  Output out;
  if (positions == "rope_cache") {
    out = cache_positions(run, in, sinks, window, scale);
  } else if (positions == "absolute") {
    out = attend(run, in, mask, scale);
  } else if (positions == "rope_absolute") {
    Rotor rotor(run, in.q.size(-1), tokens);
    const at::Tensor at = at::arange(tokens, at::kLong);
    out = attend(run, {rotor(in.q, at), rotor(in.k, at), in.v}, mask, scale);
  } else {
    run.refuse("config of `sink_window`: positions `", positions,
               "`, known: absolute, rope_absolute, rope_cache");
  }
  run.produce_sequence("o", out.o);
  run.produce("lse", out.lse);
  run.produce("mask", interval_mask_matrix(mask, 1, 1, tokens, tokens)[0][0]);
}

}  // namespace longreach
