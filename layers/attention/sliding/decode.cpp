// Sliding decoding in memory O(window + sinks), whatever the length: the first `sinks` keys stay at the front
// of a buffer, the latest follow, and when the buffer is full the last window - 1 move back behind the sinks.
// A buffer with room for another window makes such a move cost O(1) a token.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>

#include <algorithm>

#include "core/error.h"
#include "layers/attention/common/attend_decoding.h"
#include "layers/attention/sliding/module.h"

namespace longreach::sliding {
namespace {

struct WindowCache : DecodeState {
  WindowCache(int64_t batch_size, int64_t max_tokens, const SlidingConfig& config)
      : batch(batch_size),
        limit(max_tokens),
        window(config.window),
        sinks(config.sinks),
        room(std::max<int64_t>(config.window, 64)),
        capacity(std::min(max_tokens, sinks + window - 1 + room)) {}
  int64_t bytes() const override {
    return keys.defined() ? static_cast<int64_t>(keys.nbytes() + values.nbytes()) : 0;
  }
  int64_t tokens() const override { return seen; }

  // At most `room` tokens at a time.
  void append(const at::Tensor& k, const at::Tensor& v) {
    const int64_t n = k.size(1);
    if (!keys.defined()) {
      keys = at::empty({batch, capacity, k.size(2), k.size(3)}, k.options());
      values = at::empty({batch, capacity, v.size(2), v.size(3)}, v.options());
    }
    if (used + n > capacity) forget();
    keys.narrow(1, used, n).copy_(k);
    values.narrow(1, used, n).copy_(v);
    used += n;
    seen += n;
  }

  void forget() {
    const int64_t kept = window - 1;
    for (at::Tensor* cache : {&keys, &values})
      if (kept > 0) cache->narrow(1, sinks, kept).copy_(cache->narrow(1, used - kept, kept).clone());
    first = sinks;
    used = sinks + kept;
  }

  // What the last n tokens of the buffer see.
  IntervalMask mask(int64_t n) const {
    const at::Tensor place = at::arange(used - n, used, at::kLong).view({1, 1, n});
    IntervalMask mask{.sinks = sinks};
    mask.lo = (place - (window - 1)).clamp_min(first).to(at::kInt).to(keys.device());
    mask.hi = (place + 1).to(at::kInt).to(keys.device());
    return mask;
  }

  at::Tensor keys, values;  // [B, capacity, HK, D]: sinks, stale up to `first`, then the latest up to `used`
  int64_t batch, limit, window, sinks, room, capacity;
  int64_t first = 0, used = 0, seen = 0;
};

}  // namespace

std::unique_ptr<DecodeState> SlidingAttention::start_decoding(int64_t batch_size, int64_t max_tokens) const {
  return std::make_unique<WindowCache>(batch_size, max_tokens, config_);
}

at::Tensor SlidingAttention::decode(const at::Tensor& x, DecodeState& state) {
  const at::NoGradGuard no_grad;
  auto& cache = dynamic_cast<WindowCache&>(state);
  expect_decode_input(x, cache.batch, cache.seen, cache.limit);
  const Heads all = project(x, next_positions(x, cache.seen), cache.seen + x.size(1));
  std::vector<at::Tensor> pieces;
  for (int64_t begin = 0; begin < x.size(1); begin += cache.room) {
    const int64_t n = std::min(cache.room, x.size(1) - begin);
    Heads heads{all.q.narrow(1, begin, n), {}, {}};
    cache.append(all.k.narrow(1, begin, n), all.v.narrow(1, begin, n));
    heads.k = cache.keys.narrow(1, 0, cache.used);
    heads.v = cache.values.narrow(1, 0, cache.used);
    pieces.push_back(merge(attend_decoding(heads, cache.mask(n), site_.implementation)));
  }
  return pieces.size() == 1 ? pieces[0] : at::cat(pieces, 1);
}

}  // namespace longreach::sliding
