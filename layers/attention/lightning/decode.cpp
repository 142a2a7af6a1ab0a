// Lightning decoding: the state S is all there is, the same size at every length, in float32 whatever the
// dtype of x (a bfloat16 state loses up to a quarter of the output).
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>

#include "core/error.h"
#include "layers/attention/lightning/module.h"

namespace longreach::lightning {
namespace {

struct LinearState : DecodeState {
  LinearState(int64_t batch_size, int64_t max_tokens) : batch(batch_size), limit(max_tokens) {}
  int64_t bytes() const override { return state.defined() ? static_cast<int64_t>(state.nbytes()) : 0; }
  int64_t tokens() const override { return seen; }

  at::Tensor state;  // [B, H, Dk, D]; undefined at first: zero
  int64_t batch, limit, seen = 0;
};

}  // namespace

std::unique_ptr<DecodeState> LightningAttention::start_decoding(int64_t batch_size,
                                                                int64_t max_tokens) const {
  return std::make_unique<LinearState>(batch_size, max_tokens);
}

at::Tensor LightningAttention::decode(const at::Tensor& x, DecodeState& decode_state) {
  const at::NoGradGuard no_grad;
  auto& state = dynamic_cast<LinearState&>(decode_state);
  expect_decode_input(x, state.batch, state.seen, state.limit);
  const at::Tensor positions =
      at::arange(state.seen, state.seen + x.size(1), at::kLong).unsqueeze(0).expand({x.size(0), x.size(1)});
  // A state keeps turned keys: `dynamic` cannot turn them again.
  if (options_.rotary) options_.rotary->expect_steady_angles(state.seen, x.size(1));
  const LightningOutput out =
      lightning_layer(x, positions, weights(), options_, state.state, {}, state.seen + x.size(1));
  state.state = out.state;
  state.seen += x.size(1);
  return out.y;
}

}  // namespace longreach::lightning
