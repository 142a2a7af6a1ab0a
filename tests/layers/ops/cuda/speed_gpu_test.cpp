// Attention on a device against LibTorch's SDPA with its FlashAttention and its cuDNN backend: the same
// inputs, results compared first, contestants alternated, times between CUDA events on one stream. Prints
// times, rates and ratios; it asserts that results agree and that no rate exceeds the device's published
// peak, never that one is fast.
#include <ATen/Context.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cstdio>
#include <functional>

#include "layers/ops/cuda/occupancy.h"
#include "layers/ops/interval_attention/interval_attention.h"
#include "tests/support/device_fixture.h"
#include "tests/support/random_tensors.h"

namespace longreach::test {
namespace {

struct Shape {
  int64_t batch, heads, queries, keys, size;
  bool backward;
  bool causal() const { return queries == keys; }
  // 4 D a visible pair forward (two products), 10 D backward (five).
  double flops() const {
    const double pairs = causal() ? 0.5 * static_cast<double>(queries) * static_cast<double>(keys + 1)
                                  : static_cast<double>(queries * keys);
    return static_cast<double>(batch * heads * size) * pairs * (backward ? 14 : 4);
  }
};

using Attention = std::function<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&)>;

// Which kernel SDPA may take; what it may take otherwise comes back at the end.
class OnlyBackend {
 public:
  explicit OnlyBackend(at::SDPBackend wanted) {
    context_.setSDPUseFlash(wanted == at::SDPBackend::flash_attention);
    context_.setSDPUseCuDNN(wanted == at::SDPBackend::cudnn_attention);
    context_.setSDPUseMath(false);
    context_.setSDPUseMemEfficient(false);
  }
  ~OnlyBackend() {
    context_.setSDPUseFlash(true), context_.setSDPUseCuDNN(true);
    context_.setSDPUseMath(true), context_.setSDPUseMemEfficient(true);
  }
  OnlyBackend(const OnlyBackend&) = delete;

 private:
  at::Context& context_ = at::globalContext();
};

// One implementation over inputs in the layout that it likes best, made before any clock starts.
class Contestant {
 public:
  Contestant(const char* name, const Shape& shape, bool heads_first, Attention attention)
      : name(name), shape_(shape), heads_first_(heads_first), attention_(std::move(attention)) {
    const auto input = [&](int64_t tokens, uint64_t seed) {
      const at::Tensor x =
          on_device(normal({shape.batch, tokens, shape.heads, shape.size}, seed).to(at::kBFloat16));
      return (heads_first ? x.transpose(1, 2).contiguous() : x).detach();
    };
    inputs_ = {input(shape.queries, 1), input(shape.keys, 2), input(shape.keys, 3)};
    grad_ = input(shape.queries, 4);
    for (at::Tensor& x : inputs_) x.requires_grad_(shape.backward);
  }

  // o, and dq, dk, dv of a shape with a backward pass.
  std::vector<at::Tensor> once() const {
    std::vector<at::Tensor> all{attention_(inputs_[0], inputs_[1], inputs_[2])};
    if (!shape_.backward) return all;
    for (at::Tensor& g : torch::autograd::grad({all[0]}, inputs_, {grad_})) all.push_back(std::move(g));
    return all;
  }

  // Results on the CPU, [B, T, H, D].
  std::vector<at::Tensor> results() const {
    std::vector<at::Tensor> all;
    for (const at::Tensor& x : once())
      all.push_back((heads_first_ ? x.detach().transpose(1, 2) : x.detach()).to(at::kCPU));
    return all;
  }

  const char* name;
  std::vector<double> milliseconds;
  std::string refused;

 private:
  Shape shape_;
  bool heads_first_;
  Attention attention_;
  std::vector<at::Tensor> inputs_;
  at::Tensor grad_;
};

c10::Stream current_stream() {
  const c10::impl::VirtualGuardImpl device(c10::DeviceType::CUDA);
  return device.getStream(device.getDevice());
}

// Time of `repeats` calls on the device, one after another on one stream, in milliseconds a call.
double sample(const Contestant& contestant, int repeats) {
  const c10::Stream stream = current_stream();
  c10::Event begin(c10::DeviceType::CUDA, c10::EventFlag::BACKEND_DEFAULT),
      end(c10::DeviceType::CUDA, c10::EventFlag::BACKEND_DEFAULT);
  begin.record(stream);
  for (int i = 0; i < repeats; ++i) contestant.once();
  end.record(stream);
  end.synchronize();
  return begin.elapsedTime(end) / repeats;
}

double median(std::vector<double> x) {
  std::nth_element(x.begin(), x.begin() + static_cast<ptrdiff_t>(x.size() / 2), x.end());
  return x[x.size() / 2];
}

std::vector<Contestant> make_contestants(const Shape& shape) {
  const bool causal = shape.causal();
  std::vector<Contestant> all;
  all.emplace_back("longreach", shape, false, [causal](const auto& q, const auto& k, const auto& v) {
    return interval_attention(q, k, v, {.causal = causal}).o;
  });
  const auto sdpa = [causal](at::SDPBackend backend) -> Attention {
    return [causal, backend](const auto& q, const auto& k, const auto& v) {
      const OnlyBackend only(backend);
      return at::scaled_dot_product_attention(q, k, v, {}, 0.0, causal);
    };
  };
  all.emplace_back("SDPA flash", shape, true, sdpa(at::SDPBackend::flash_attention));
  all.emplace_back("SDPA cuDNN", shape, true, sdpa(at::SDPBackend::cudnn_attention));
  return all;
}

// Ours must run; a peer that refuses a case is named and left out. bf16 results of two kernels differ by
// their roundings.
void check_agreement(std::vector<Contestant>& all) {
  const std::vector<at::Tensor> ours = all[0].results();
  for (size_t i = 1; i < all.size(); ++i) {
    try {
      const std::vector<at::Tensor> theirs = all[i].results();
      for (size_t r = 0; r < ours.size(); ++r)
        EXPECT_LE(relative_error(ours[r], theirs[r]), 2e-2) << all[i].name << " result " << r;
    } catch (const c10::Error& error) {
      all[i].refused = error.what_without_backtrace();
    }
  }
}

void measure(std::vector<Contestant>& all) {
  constexpr int kRounds = 11;
  constexpr double kShortest = 20.0;  // milliseconds a sample at least
  std::vector<int> repeats;
  for (const Contestant& one : all) {
    if (!one.refused.empty()) {
      repeats.push_back(0);
      continue;
    }
    sample(one, 3);  // cuDNN builds its plan, clocks rise
    repeats.push_back(std::clamp(static_cast<int>(kShortest / std::max(sample(one, 3), 1e-3)), 1, 2000));
  }
  for (int round = 0; round < kRounds; ++round)
    for (size_t i = 0; i < all.size(); ++i) {
      const size_t next = (i + static_cast<size_t>(round)) % all.size();
      if (repeats[next] > 0) all[next].milliseconds.push_back(sample(all[next], repeats[next]));
    }
}

// 0 where no published figure is at hand.
double published_peak() {
  const std::string arch = text("sm_", cuda::backend().architecture());
  for (const cuda::DeviceLimits& device : cuda::kDevices)
    if (arch == device.arch) return device.half_flops;
  return 0;
}

void report(const Shape& shape, const std::vector<Contestant>& all) {
  const double ours = median(all[0].milliseconds), peak = published_peak();
  std::printf("B %lld H %lld Tq %lld Tk %lld D %lld bf16 %s%s\n", static_cast<long long>(shape.batch),
              static_cast<long long>(shape.heads), static_cast<long long>(shape.queries),
              static_cast<long long>(shape.keys), static_cast<long long>(shape.size),
              shape.causal() ? "causal" : "one query",
              shape.backward ? ", forward and backward" : ", forward");
  for (const Contestant& one : all) {
    if (!one.refused.empty()) {
      std::printf("  %-12s refused: %s\n", one.name, one_line(one.refused, 160).c_str());
      continue;
    }
    const double time = median(one.milliseconds),
                 least = *std::min_element(one.milliseconds.begin(), one.milliseconds.end());
    const double rate = shape.flops() / (least * 1e-3);
    std::printf("  %-12s median %8.3f ms, least %8.3f ms, %7.1f TFLOP/s, %5.2f x our time\n", one.name, time,
                least, rate * 1e-12, time / ours);
    if (peak > 0) {
      EXPECT_LE(rate, 1.05 * peak) << one.name << " is faster than the device can be";
    }
    testing::Test::RecordProperty(text(one.name, " ms"), text(time));
  }
}

TEST_F(Device, SpeedOfAttentionBesideFlashAttentionAndCudnn) {
  at::globalContext().setDeterministicAlgorithms(false,
                                                 false);  // cuDNN's backward pass has no deterministic form
  for (const Shape& shape : std::vector<Shape>{{1, 16, 8192, 8192, 64, false},
                                               {1, 16, 8192, 8192, 64, true},
                                               {1, 16, 8192, 8192, 128, false},
                                               {1, 16, 8192, 8192, 128, true},
                                               {8, 16, 1024, 1024, 128, true},
                                               {16, 16, 1, 8192, 128, false}}) {
    std::vector<Contestant> all = make_contestants(shape);
    check_agreement(all);
    measure(all);
    report(shape, all);
  }
}

}  // namespace
}  // namespace longreach::test
