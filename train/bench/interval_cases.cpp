// interval_attention as dense causal attention, and with a sliding window.
#include "layers/ops/interval_attention/interval_attention.h"

#include "train/bench/bench_case.h"

namespace longreach::bench {
namespace {

constexpr int64_t kWindow = 512;

BenchCase windowed_case(int64_t window) {
  const IntervalMask mask{.causal = true, .window = window};
  BenchCase result;
  result.fused = [mask](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
    return interval_attention(q, k, v, mask).o;
  };
  result.reference = [mask](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
    return interval_attention_reference(q, k, v, mask).o;
  };
  result.flops = [window](const Setting& setting) { return softmax_flops(setting, window); };
  result.state_bytes = [](const Setting& s) {
    return s.batch * s.heads * s.tokens * int64_t{sizeof(float)};
  };  // lse
  result.is_causal_softmax = window == 0;
  result.for_peers = [window](int64_t) -> nlohmann::json {
    if (window == 0) return {{"kind", "causal"}};
    return {{"kind", "window"}, {"window", window}};
  };
  return result;
}

}  // namespace

BenchCase interval_attention_case() {
  BenchCase result = windowed_case(0);
  result.name = "interval_attention";
  result.help = "dense causal softmax attention";
  return result;
}

BenchCase sliding_case() {
  BenchCase result = windowed_case(kWindow);
  result.name = "sliding";
  result.help = "causal softmax attention over a window of 512 keys";
  return result;
}

}  // namespace longreach::bench
