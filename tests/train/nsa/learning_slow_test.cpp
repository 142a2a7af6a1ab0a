// What native sparse attention must learn: to find one key among many blocks and read the value beside it, and
// to copy from beyond the window.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randint.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <random>

#include "layers/attention.h"
#include "layers/nsa/nsa.h"
#include "layers/loss.h"
#include "models/transformer.h"
#include "train/optimizer.h"

namespace longreach {
namespace {

double env(const char* name, double otherwise) {
  const char* value = std::getenv(name);
  return value ? std::atof(value) : otherwise;
}

// Pairs of a key and a value stand in the first part, `pairs_a_block` in a block; the rest are fillers. The last
// part asks for each key once: the label of a key there is its value.
struct Recall {
  int64_t tokens = 512, block = 16, keys = 32, values = 32, fillers = 8, pairs = 16, a_block = 4, asked = 64;
  int64_t vocabulary() const { return keys + values + fillers; }
};

struct Rows {
  at::Tensor tokens, labels, needle;  // int64 [B, T]; needle: block of the asked pair, -1 elsewhere
};

Rows draw(const Recall& task, int64_t rows, std::mt19937_64& random) {
  const auto below = [&](int64_t n) {
    return static_cast<int64_t>(std::uniform_int_distribution<int64_t>(0, n - 1)(random));
  };
  const at::Tensor tokens = at::empty({rows, task.tokens}, at::kLong),
                   labels = at::full({rows, task.tokens}, kIgnoredLabel, at::kLong),
                   needle = at::full({rows, task.tokens}, -1, at::kLong);
  for (int64_t row = 0; row < rows; ++row) {
    auto* t = tokens.mutable_data_ptr<int64_t>() + row * task.tokens;
    auto* l = labels.mutable_data_ptr<int64_t>() + row * task.tokens;
    auto* b = needle.mutable_data_ptr<int64_t>() + row * task.tokens;
    for (int64_t i = 0; i < task.tokens; ++i) t[i] = task.keys + task.values + below(task.fillers);
    std::vector<int64_t> keys(static_cast<size_t>(task.keys));
    for (size_t i = 0; i < keys.size(); ++i) keys[i] = static_cast<int64_t>(i);
    std::shuffle(keys.begin(), keys.end(), random);
    // Block 0 is forced and holds no pair; the blocks just before the questions neither.
    const int64_t last = (task.tokens - task.asked) / task.block - 2;
    std::vector<int64_t> blocks;
    for (int64_t i = 1; i < last; ++i) blocks.push_back(i);
    std::shuffle(blocks.begin(), blocks.end(), random);
    std::vector<int64_t> value(static_cast<size_t>(task.pairs)), where(static_cast<size_t>(task.pairs));
    for (int64_t p = 0; p < task.pairs; ++p) {
      const auto i = static_cast<size_t>(p);
      value[i] = below(task.values);
      where[i] = blocks[static_cast<size_t>(p / task.a_block)];
      const int64_t room = task.block / task.a_block;
      const int64_t at = where[i] * task.block + (p % task.a_block) * room + below(room - 1);
      t[at] = keys[i];
      t[at + 1] = task.keys + value[i];
    }
    std::vector<int64_t> order(static_cast<size_t>(task.pairs));
    for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int64_t>(i);
    std::shuffle(order.begin(), order.end(), random);
    const int64_t step = task.asked / task.pairs;
    for (int64_t p = 0; p < task.pairs; ++p) {
      const auto i = static_cast<size_t>(order[static_cast<size_t>(p)]);
      const int64_t at = task.tokens - task.asked + p * step + below(step);
      t[at] = keys[i];
      l[at] = task.keys + value[i];
      b[at] = where[i];
    }
  }
  return {tokens, labels, needle};
}

TEST(NsaLearns, RecallScratch) {
  Recall task;
  task.tokens = static_cast<int64_t>(env("T", 512));
  task.pairs = static_cast<int64_t>(env("PAIRS", 16));
  task.a_block = static_cast<int64_t>(env("ABLOCK", 4));
  task.keys = static_cast<int64_t>(env("KEYS", 32));
  task.values = static_cast<int64_t>(env("VALUES", 32));
  task.asked = static_cast<int64_t>(env("ASKED", 64));
  ModelConfig config;
  config.hidden_size = static_cast<int64_t>(env("C", 64));
  config.num_hidden_layers = 2;
  config.num_attention_heads = static_cast<int64_t>(env("H", 4));
  config.num_key_value_heads = static_cast<int64_t>(env("HK", 2));
  config.intermediate_size = static_cast<int64_t>(env("F", 64));
  config.max_position_embeddings = 512;
  config.tie_word_embeddings = env("TIE", 0) > 0;
  config.rope.theta = env("THETA", 10000);
  config.qk_norm = env("QKNORM", 0) > 0;
  NsaConfig nsa;
  nsa.compress = std::getenv("COMPRESS") ? std::getenv("COMPRESS") : "mean";
  nsa.compress_block = static_cast<int64_t>(env("L", 16));
  nsa.compress_stride = static_cast<int64_t>(env("S", 16));
  nsa.block_size = 16;
  nsa.num_blocks = static_cast<int64_t>(env("N", 6));
  nsa.first_blocks = 1;
  nsa.latest_blocks = static_cast<int64_t>(env("LATEST", 1));
  nsa.window = static_cast<int64_t>(env("W", 8));
  config.attention = {{.layers = "all", .config = nsa}};
  if (env("REF", 1) > 0) config.implementation = Implementation::reference;
  config.resolve(task.vocabulary());
  Transformer model(config, 1);
  NamedParameters parameters;
  for (const auto& item : model.named_parameters()) parameters.emplace_back(item.key(), item.value());
  const double lr = env("LR", 3e-3);
  AdamW optimizer(parameters, {.lr = lr, .weight_decay = env("WD", 0.0)});
  std::mt19937_64 random(7);
  const auto start = std::chrono::steady_clock::now();
  const int64_t steps = static_cast<int64_t>(env("STEPS", 400)), batch = static_cast<int64_t>(env("B", 4));
  for (int64_t step = 0; step < steps; ++step) {
    Recall now = task;
    if (step < env("SHORT", 0) * steps) now.tokens = static_cast<int64_t>(env("TS", 256));
    const int64_t b = batch * task.tokens / now.tokens;
    const Rows rows = draw(now, b, random);
    optimizer.zero_grad();
    const LossOutput out = model.loss(rows.tokens, rows.labels, whole_rows(b, now.tokens));
    const at::Tensor loss = out.loss_sum / static_cast<double>(out.tokens);
    loss.backward();
    const double norm = gradient_norm(parameters).norm;
    clip_gradients(parameters, norm, 1.0);
    const double progress = static_cast<double>(step) / static_cast<double>(steps);
    optimizer.step(lr * std::min({1.0, (static_cast<double>(step) + 1) / 30.0, 0.05 + 3 * (1 - progress)}));
    if (step % 25 == 24 || step == 0) {
      const at::NoGradGuard no_grad;
      const Rows test = draw(task, 4, random);
      const at::Tensor logits = model.logits(test.tokens, whole_rows(4, task.tokens));
      const at::Tensor asked = test.labels != kIgnoredLabel;
      const double accuracy =
          (logits.argmax(-1) == test.labels).masked_select(asked).to(at::kDouble).mean().item<double>();
      const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      std::printf("%4ld loss %.4f accuracy %.3f  %.0f s (cpu %.0f)\n", static_cast<long>(step + 1),
                  loss.item<double>(), accuracy, seconds, static_cast<double>(std::clock()) / CLOCKS_PER_SEC);
      std::fflush(stdout);
    }
  }
}

}  // namespace
}  // namespace longreach
