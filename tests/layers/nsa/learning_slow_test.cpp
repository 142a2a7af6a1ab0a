// What native sparse attention must learn: to find one key among many blocks, far outside the window, and to read
// its value from the selected block.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <numeric>
#include <random>

#include "layers/attention.h"
#include "layers/attention_config.h"
#include "layers/initialization.h"
#include "layers/norm.h"
#include "layers/nsa/nsa.h"

namespace longreach {
namespace {

double env(const char* name, double otherwise) {
  const char* value = std::getenv(name);
  return value ? std::atof(value) : otherwise;
}
int64_t ienv(const char* name, int64_t otherwise) {
  return static_cast<int64_t>(env(name, static_cast<double>(otherwise)));
}

constexpr int64_t kIgnored = -100;

// Every token carries a key and a value. `pairs` tokens with different keys, `a_block` in a block, stand anywhere
// before the last `asked` tokens, of which some ask for one of those keys, with no value; the label is the value.
// The others carry a filler and no value.
struct Recall {
  int64_t tokens = 512, block = 16, keys = 32, values = 8, fillers = 8, a_block = 4, asked = 64;
  int64_t pairs = 32;
};

struct Rows {
  at::Tensor keys, values, labels, needle;  // int64 [B, T]; needle: the block of the pair asked for, else -1
};

class Source {
 public:
  explicit Source(uint64_t seed) : random_(seed) {}

  Rows draw(const Recall& task, int64_t count) {
    const auto full = [&](int64_t value) { return at::full({count, task.tokens}, value, at::kLong); };
    Rows rows{full(0), full(task.values), full(kIgnored), full(-1)};
    for (int64_t row = 0; row < count; ++row) {
      const auto line = [&](const at::Tensor& x) {
        return x.mutable_data_ptr<int64_t>() + row * task.tokens;
      };
      fill(task, line(rows.keys), line(rows.values), line(rows.labels), line(rows.needle));
    }
    return rows;
  }

 private:
  int64_t below(int64_t n) { return std::uniform_int_distribution<int64_t>(0, n - 1)(random_); }
  std::vector<int64_t> shuffled(int64_t first, int64_t end) {
    std::vector<int64_t> order(static_cast<size_t>(end - first));
    std::iota(order.begin(), order.end(), first);
    std::shuffle(order.begin(), order.end(), random_);
    return order;
  }

  void fill(const Recall& task, int64_t* keys, int64_t* values, int64_t* labels, int64_t* needle) {
    const int64_t first_asked = task.tokens - task.asked;
    for (int64_t t = 0; t < task.tokens; ++t) keys[t] = task.keys + below(task.fillers);
    // The first block is always selected and holds no pair; neither do the blocks before the questions.
    const auto blocks = shuffled(1, first_asked / task.block - 2), names = shuffled(0, task.keys),
               order = shuffled(0, task.pairs);
    const int64_t room = task.block / task.a_block, stretch = task.asked / task.pairs;
    std::vector<int64_t> value, where;
    for (int64_t n = 0; n < task.pairs; ++n) {
      value.push_back(below(task.values));
      where.push_back(blocks[static_cast<size_t>(n / task.a_block)]);
      const int64_t t = where.back() * task.block + n % task.a_block * room + below(room);
      keys[t] = names[static_cast<size_t>(n)];
      values[t] = value.back();
    }
    for (int64_t n = 0; n < task.pairs; ++n) {
      const auto i = static_cast<size_t>(order[static_cast<size_t>(n)]);
      const int64_t t = first_asked + n * stretch + below(stretch);
      keys[t] = names[i];
      labels[t] = value[i];
      needle[t] = where[i];
    }
  }

  std::mt19937_64 random_;
};

// Adam (arXiv 1412.6980) after clipping the whole gradient to length 1.
class Adam {
 public:
  explicit Adam(std::vector<at::Tensor> parameters) : parameters_(std::move(parameters)) {
    for (const at::Tensor& parameter : parameters_) {
      first_.push_back(at::zeros_like(parameter));
      second_.push_back(at::zeros_like(parameter));
    }
  }

  void step(double rate) {
    const at::NoGradGuard no_grad;
    ++steps_;
    double square = 0;
    for (const at::Tensor& parameter : parameters_) square += parameter.grad().square().sum().item<double>();
    const double shrink = std::min(1.0, 1.0 / std::sqrt(square));
    const double first_left = 1.0 - std::pow(kFirst, steps_), second_left = 1.0 - std::pow(kSecond, steps_);
    for (size_t i = 0; i < parameters_.size(); ++i) {
      const at::Tensor gradient = parameters_[i].grad() * shrink;
      first_[i].mul_(kFirst).add_(gradient, 1.0 - kFirst);
      second_[i].mul_(kSecond).addcmul_(gradient, gradient, 1.0 - kSecond);
      parameters_[i].sub_(first_[i] / ((second_[i] / second_left).sqrt() + 1e-8), rate / first_left);
      parameters_[i].mutable_grad() = at::Tensor();
    }
  }

 private:
  static constexpr double kFirst = 0.9, kSecond = 0.95;
  std::vector<at::Tensor> parameters_, first_, second_;
  double steps_ = 0;
};

// Two attention layers between an embedding and a head.
class Model {
 public:
  Model(const Recall& task, const AttentionConfig& attention) {
    LayerSite site{.hidden_size = ienv("C", 64),
                   .num_heads = ienv("H", 4),
                   .num_kv_heads = 1,
                   .head_dim = ienv("D", 16),
                   .num_layers = 2,
                   .max_position_embeddings = task.tokens,
                   .initializer_range = env("INIT", 0.1),
                   .qk_norm = env("QKNORM", 0) > 0,
                   .seed = 3};
    site.rope.theta = env("THETA", 10000);
    for (int64_t layer = 0; layer < ienv("LAYERS", 2); ++layer) {
      LayerSite here = site;
      here.layer = layer;
      here.seed = derive_seed(site.seed, layer == 0 ? "first" : "second");
      layers_.push_back(make_attention(attention, here));
    }
    keys_ = normal_parameter({task.keys + task.fillers, site.hidden_size}, 1.0, 4).requires_grad_(true);
    values_ = normal_parameter({task.values + 1, site.hidden_size}, 1.0, 6).requires_grad_(true);
    head_ = normal_parameter({task.values, site.hidden_size}, 0.1, 5).requires_grad_(true);
  }

  std::vector<at::Tensor> parameters() const {
    std::vector<at::Tensor> all{keys_, values_, head_};
    for (const auto& layer : layers_)
      for (const at::Tensor& parameter : layer->parameters()) all.push_back(parameter);
    return all;
  }

  at::Tensor logits(const Rows& rows) {
    return run(rows, [](Attention& layer, const at::Tensor& x, const Batch& batch) {
      return layer.forward(x, batch).y;
    });
  }

  template <class Layer>
  at::Tensor run(const Rows& rows, Layer step) {
    const Batch batch{.positions =
                          at::arange(rows.keys.size(1), at::kLong).unsqueeze(0).expand_as(rows.keys)};
    at::Tensor x = at::embedding(keys_, rows.keys) + at::embedding(values_, rows.values);
    for (const auto& layer : layers_) x = x + step(*layer, rms_norm(x, {}, 1e-5), batch);
    return rms_norm(x, {}, 1e-5).matmul(head_.t());
  }

 private:
  std::vector<std::shared_ptr<Attention>> layers_;
  at::Tensor keys_, values_, head_;
};

double seconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

struct Score {
  double loss, accuracy, hit;
};

Score score(Model& model, const Rows& rows, const std::array<double, 3>& branches) {
  const at::NoGradGuard no_grad;
  const at::Tensor asked = rows.labels != kIgnored;
  double best = 0;
  const at::Tensor logits = model.run(rows, [&](Attention& layer, const at::Tensor& x, const Batch& batch) {
    const NsaProbe probe = nsa_probe(layer, x, batch, branches);
    const at::Tensor found = (probe.block_indices.select(1, 0) == rows.needle.unsqueeze(-1)).any(-1);
    best = std::max(best, found.masked_select(asked).to(at::kDouble).mean().item<double>());
    return probe.y;
  });
  const at::Tensor labels = rows.labels.flatten();
  constexpr int64_t kMean = 1;
  const double loss =
      at::cross_entropy_loss(logits.flatten(0, 1), labels, {}, kMean, kIgnored).item<double>();
  const at::Tensor right = (logits.argmax(-1) == rows.labels).masked_select(asked);
  return {loss, right.to(at::kDouble).mean().item<double>(), best};
}

double train(Model& model, const Recall& task, int64_t steps, int64_t batch, double rate, bool nsa = true) {
  Adam optimizer(model.parameters());
  Source source(7), other(8);
  double running = 0;
  for (int64_t step = 0; step < steps; ++step) {
    Recall now = task;
    const double at = static_cast<double>(step) / static_cast<double>(steps);
    now.pairs = at < env("P1", 0.2) ? ienv("N1", 4) : at < env("P2", 0.4) ? ienv("N2", 16) : task.pairs;
    if (at < env("P1", 0.2)) now.a_block = ienv("AB1", 1);
    const Rows rows = source.draw(now, batch);
    constexpr int64_t kMean = 1;
    const at::Tensor loss =
        at::cross_entropy_loss(model.logits(rows).flatten(0, 1), rows.labels.flatten(), {}, kMean, kIgnored);
    loss.backward();
    running = step == 0 ? loss.item<double>() : 0.9 * running + 0.1 * loss.item<double>();
    const double left = 1.0 - static_cast<double>(step) / static_cast<double>(steps);
    optimizer.step(rate * std::min({1.0, (static_cast<double>(step) + 1.0) / 20.0, 0.05 + 3.0 * left}));
    if (nsa && step % 20 == 19) {
      const Score s = score(model, other.draw(task, 4), {1, 1, 1}),
                  cut = score(model, other.draw(task, 4), {1, 0, 1});
      std::printf("%4ld loss %.3f  test %.3f accuracy %.3f hit %.3f | cut %.3f  cpu %.0f s\n",
                  static_cast<long>(step + 1), running, s.loss, s.accuracy, s.hit, cut.accuracy, seconds());
      std::fflush(stdout);
    }
  }
  return running;
}

TEST(NsaLearns, ScratchRecall) {
  Recall task;
  task.tokens = ienv("T", 512);
  task.keys = ienv("KEYS", 32);
  task.values = ienv("VALUES", 8);
  task.a_block = ienv("ABLOCK", 4);
  task.asked = ienv("ASKED", 64);
  NsaConfig config{.compress_block = ienv("L", 16),
                   .compress_stride = ienv("S", 16),
                   .block_size = 16,
                   .num_blocks = ienv("N", 4),
                   .latest_blocks = 1,
                   .window = ienv("W", 16)};
  config.compress = std::getenv("COMPRESS") ? std::getenv("COMPRESS") : "mean";
  Model model(task, config);
  train(model, task, ienv("STEPS", 200), ienv("B", 8), env("LR", 3e-3));
}

}  // namespace
}  // namespace longreach
