// Decoding: a cache of keys and values, and beside it the gate's keys of the blocks that are complete. A
// block's key is made once, when its last token has come; until then the block's keys wait as they were
// before rotation.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>

#include "core/error.h"
#include "layers/attention/common/attend_decoding.h"
#include "layers/attention/common/kv_cache.h"
#include "layers/attention/seer/module.h"

namespace longreach::seer {
namespace {

struct SeerCache : KvCache {
  using KvCache::KvCache;
  int64_t bytes() const override {
    const int64_t held = waiting.defined() ? static_cast<int64_t>(waiting.nbytes()) : 0;
    return KvCache::bytes() + blocks.bytes() + held;
  }

  GrowingRows blocks;  // the gate's keys of complete ones, [B, blocks, HK, gh]
  at::Tensor waiting;  // [B, tokens of the incomplete block, HK, D], before the rotary embedding
};

}  // namespace

std::unique_ptr<DecodeState> SeerAttention::start_decoding(int64_t batch_size, int64_t max_tokens) const {
  return std::make_unique<SeerCache>(batch_size, max_tokens);
}

at::Tensor SeerAttention::decode(const at::Tensor& x, DecodeState& state) {
  const at::NoGradGuard no_grad;
  auto& cache = dynamic_cast<SeerCache&>(state);
  expect_decode_input(x, cache.batch, cache.used, cache.limit);
  const int64_t length = cache.used + x.size(1);
  if (gate_rotary_) gate_rotary_->expect_steady_angles(cache.used, x.size(1));
  const at::Tensor positions = next_positions(x, cache.used);
  const Heads plain = split_heads(x);
  Heads heads = rotated(plain, positions, length);
  cache.append(heads.k, heads.v);
  heads.k = cache.filled_keys();
  heads.v = cache.filled_values();
  if (config_.mode == "dense" || !form_.decode)
    return merge(attend_decoding(heads, {}, site_.implementation));

  const SeerPlaces places{.tokens = cache.used, .offset = cache.used - x.size(1), .length = length};
  at::Tensor fresh = cache.waiting.defined() ? at::cat({cache.waiting, plain.k}, 1) : plain.k;
  const int64_t complete = fresh.size(1) / form_.block_size, tokens = complete * form_.block_size;
  if (complete > 0 || !cache.blocks.rows.defined())
    cache.blocks.append(seer_gate_keys(form_, gate_->weights(), fresh.narrow(1, 0, tokens),
                                       gate_rotary_.get(), places, site_.implementation, cache.blocks.used));
  fresh = fresh.narrow(1, tokens, fresh.size(1) - tokens);
  cache.waiting = fresh.clone();
  const at::Tensor q = seer_gate_queries(form_, gate_->weights(), plain.q, gate_rotary_.get(), positions,
                                         places, site_.implementation);
  const at::Tensor indices =
      seer_choose(form_, rule_, q, cache.blocks.filled(), places, site_.implementation);
  return merge(seer_attend(form_, heads.q, heads.k, heads.v, indices, places, false, site_.implementation).o);
}

}  // namespace longreach::seer
