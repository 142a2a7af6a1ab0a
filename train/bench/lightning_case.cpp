// The linear recurrence with a constant decay per head: Lightning attention.
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>

#include <cmath>

#include "layers/ops/recurrence/recurrence.h"
#include "train/bench/bench_case.h"

namespace longreach::bench {
namespace {

// ALiBi's slopes, as Lightning attention takes them (arXiv 2401.04658): head h decays by exp(-2^(-8 (h + 1) /
// H)).
std::vector<float> log_decays(int64_t heads) {
  std::vector<float> decays;
  for (int64_t h = 1; h <= heads; ++h) {
    decays.push_back(-std::exp2(-8.0F * static_cast<float>(h) / static_cast<float>(heads)));
  }
  return decays;
}

at::Tensor log_decay_tensor(int64_t heads) {
  const std::vector<float> decays = log_decays(heads);
  at::Tensor tensor = at::empty({heads}, at::kFloat);
  std::copy(decays.begin(), decays.end(), tensor.mutable_data_ptr<float>());
  return tensor;
}

double scale_of(const at::Tensor& q) { return 1.0 / std::sqrt(static_cast<double>(q.size(3))); }

at::Tensor fused(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  return recurrence(q, k, v, log_decay_tensor(q.size(2)), {}, {}, {.scale = scale_of(q)}).o;
}

// o_i = scale sum_{j <= i} exp((i - j) log_decay) (q_i . k_j) v_j: the unrolled sum, unlike
// recurrence_reference good for a few rows at the end of a long sequence.
at::Tensor unrolled(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  const int64_t queries = q.size(1), keys = k.size(1), heads = q.size(2);
  const auto head_first = [heads](const at::Tensor& x) {
    return x.repeat_interleave(heads / x.size(2), 2).transpose(1, 2);
  };
  const at::Tensor i = at::arange(keys - queries, keys, at::kDouble).unsqueeze(1);
  const at::Tensor gap = i - at::arange(keys, at::kDouble).unsqueeze(0);
  const at::Tensor decay = log_decay_tensor(heads).to(at::kDouble).view({heads, 1, 1});
  const at::Tensor weight = ((gap.clamp_min(0) * decay).exp() * gap.ge(0)).to(q.scalar_type());
  const at::Tensor scores = head_first(q).matmul(head_first(k).transpose(2, 3)) * weight * scale_of(q);
  return scores.matmul(head_first(v)).transpose(1, 2);
}

}  // namespace

BenchCase lightning_case() {
  BenchCase result;
  result.name = "lightning";
  result.help = "linear recurrence with a constant decay per head";
  result.fused = fused;
  result.reference = unrolled;
  // Token by token: k v^T into the state and q S forward; the state again, its gradient, dq, dk and dv
  // backward. The chunked form does more.
  result.flops = [](const Setting& s) {
    const auto state = static_cast<double>(s.head_dim * s.head_dim);
    return static_cast<double>(s.batch * s.heads * s.tokens) * state * (s.backward() ? 14 : 4);
  };
  // The final state and a state a chunk, as recurrence.h says.
  result.state_bytes = [](const Setting& s) {
    const int64_t chunks = s.tokens / RecurrenceOptions{}.chunk + 1;
    return s.batch * s.heads * chunks * s.head_dim * s.head_dim * int64_t{sizeof(float)};
  };
  result.for_peers = [](int64_t heads) -> nlohmann::json {
    return {{"kind", "decay"}, {"log_decay", log_decays(heads)}};
  };
  return result;
}

}  // namespace longreach::bench
