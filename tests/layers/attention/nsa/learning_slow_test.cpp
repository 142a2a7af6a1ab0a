// What native sparse attention must learn: to find the one block that holds a key, far outside the window,
// and to read its value from there through the selected branch.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <iostream>
#include <numeric>
#include <random>
#include <vector>

#include "layers/attention/attention.h"
#include "layers/attention/mechanisms.h"
#include "layers/attention/nsa/nsa.h"
#include "layers/basic/initialization.h"
#include "layers/basic/norm.h"
#include "train/gradient_norm.h"
#include "train/optimizer.h"

namespace longreach {
namespace {

constexpr int64_t kKeys = 32, kValues = 8, kPairs = 1, kQuestions = 3, kBlock = 16, kBlank = 2 * kKeys,
                  kIgnored = -100;

// Rows of tokens, the same in every block: kPairs of them hold a key of their own and a value, and
// kQuestions, from the second block on, the question that belongs to a key of an earlier block; its label is
// that key's value. The others are blank.
struct Rows {
  at::Tensor names, values, labels, needle;  // int64 [B, T]; needle: the block of the pair asked for, else -1
};

class Source {
 public:
  explicit Source(uint64_t seed) : random_(seed) {}

  Rows draw(int64_t tokens, int64_t count) {
    const auto full = [&](int64_t value) { return at::full({count, tokens}, value, at::kLong); };
    Rows rows{full(0), full(kValues), full(kIgnored), full(-1)};
    for (int64_t row = 0; row < count; ++row) {
      const auto line = [&](const at::Tensor& x) { return x.mutable_data_ptr<int64_t>() + row * tokens; };
      fill(tokens, line(rows.names), line(rows.values), line(rows.labels), line(rows.needle));
    }
    return rows;
  }

 private:
  int64_t below(int64_t n) { return std::uniform_int_distribution<int64_t>(0, n - 1)(random_); }
  std::vector<int64_t> shuffled(int64_t n) {
    std::vector<int64_t> order(static_cast<size_t>(n));
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), random_);
    return order;
  }

  void fill(int64_t tokens, int64_t* names, int64_t* values, int64_t* labels, int64_t* needle) {
    std::fill_n(names, tokens, kBlank);
    const auto keys = shuffled(kKeys);
    std::vector<int64_t> value_of;
    for (int64_t block = 0; block < tokens / kBlock; ++block) {
      const auto places = shuffled(kBlock);
      const auto pairs = static_cast<int64_t>(value_of.size());
      for (size_t i = 0; i < kPairs + kQuestions; ++i) {
        const int64_t t = block * kBlock + places[i];
        if (i < kPairs) {
          names[t] = keys[value_of.size()];
          value_of.push_back(values[t] = below(kValues));
        } else if (block > 0) {
          const auto n = static_cast<size_t>(below(pairs));
          names[t] = kKeys + keys[n];
          labels[t] = value_of[n];
          needle[t] = static_cast<int64_t>(n) / kPairs;
        }
      }
    }
  }

  std::mt19937_64 random_;
};

// Vectors to learn; the last one, for what is not there, is zero and stays so.
at::Tensor table(int64_t rows, int64_t width, uint64_t seed) {
  at::Tensor vectors = normal_parameter({rows, width}, 1.0, seed);
  vectors.select(0, rows - 1).zero_();
  return vectors.requires_grad_(true);
}

// One layer of attention between an embedding and a head.
class Model {
 public:
  explicit Model(const NsaConfig& config) {
    LayerSite site{.hidden_size = 128,
                   .num_heads = 2,
                   .num_kv_heads = 1,
                   .head_dim = 96,
                   .num_layers = 1,
                   .max_position_embeddings = 512,
                   .initializer_range = 0.1,
                   .seed = 3};
    site.rope.theta = 1e7;  // few pairs turn within the sequence: keys are compared by content
    layer_ = make_attention(config, site);
    names_ = table(2 * kKeys + 1, site.hidden_size, 4);
    values_ = table(kValues + 1, site.hidden_size, 6);
    head_ = normal_parameter({kValues, site.hidden_size}, 0.1, 5).requires_grad_(true);
  }

  NamedParameters parameters() const {
    NamedParameters all{{"names", names_}, {"values", values_}, {"head", head_}};
    for (const auto& item : layer_->named_parameters()) all.emplace_back(item.key(), item.value());
    return all;
  }

  template <class Step>  // (layer, x, batch) -> what the layer adds to x
  at::Tensor logits(const Rows& rows, Step step) {
    const Batch batch{.positions =
                          at::arange(rows.names.size(1), at::kLong).unsqueeze(0).expand_as(rows.names)};
    const at::Tensor x =
        at::embedding(names_, rows.names, kBlank) + at::embedding(values_, rows.values, kValues);
    const at::Tensor y = x + step(*layer_, rms_norm(x, {}, 1e-5), batch);
    return rms_norm(y, {}, 1e-5).matmul(head_.t());
  }

 private:
  std::shared_ptr<Attention> layer_;
  at::Tensor names_, values_, head_;
};

struct Score {
  double accuracy, hit;  // shares of the questions: answered; whose lists hold the needle's block
};

Score score(Model& model, const Rows& rows, const std::array<double, 3>& branches) {
  const at::NoGradGuard no_grad;
  // Where a choice is hard to guess: the second half.
  const at::Tensor late = at::arange(rows.names.size(1), at::kLong) >= rows.names.size(1) / 2;
  const at::Tensor asked = (rows.labels != kIgnored).logical_and(late);
  const auto share = [&](const at::Tensor& x) {
    return x.masked_select(asked).to(at::kDouble).mean().item<double>();
  };
  double hit = 0;
  const at::Tensor logits =
      model.logits(rows, [&](Attention& layer, const at::Tensor& x, const Batch& batch) {
        const NsaProbe probe = nsa_probe(layer, x, batch, branches);
        hit = share((probe.block_indices.select(1, 0) == rows.needle.unsqueeze(-1)).any(-1));
        return probe.y;
      });
  return {share(logits.argmax(-1) == rows.labels), hit};
}

struct Phase {
  int64_t tokens, rows, steps;
  double fall = 0;  // the share of the learning rate that is gone at the end
};

// Sequences grow: where all blocks are selected the model learns to compare keys, then to find blocks.
void train(Model& model, const std::vector<Phase>& phases) {
  constexpr int64_t kMean = 1;
  constexpr double kRate = 3e-3;
  const std::vector<Run> parameters = whole_runs(model.parameters());
  AdamW optimizer(parameters, {}, {.lr = kRate, .weight_decay = 0.0});
  Source source(7);
  for (const Phase& phase : phases) {
    double loss = 0;
    for (int64_t step = 0; step < phase.steps; ++step) {
      const Rows rows = source.draw(phase.tokens, phase.rows);
      const at::Tensor logits =
          model.logits(rows, [](Attention& layer, const at::Tensor& x, const Batch& batch) {
            return layer.forward(x, batch).y;
          });
      const at::Tensor wrong =
          at::cross_entropy_loss(logits.flatten(0, 1), rows.labels.flatten(), {}, kMean, kIgnored);
      optimizer.zero_grad();
      wrong.backward();
      const double norm = clip_gradients(parameters, gradient_norm(parameters).norm, 1.0);
      const double done = static_cast<double>(step) / static_cast<double>(phase.steps);
      ASSERT_TRUE(optimizer.step(kRate * (1.0 - phase.fall * done), norm));
      loss = wrong.item<double>();
    }
    std::cout << phase.tokens << " tokens: loss " << loss << std::endl;
  }
}

TEST(NsaLearns, ToFindAKeyInOneOfManyBlocks) {
  constexpr int64_t kTokens = 512;
  const NsaConfig config{.compress_block = kBlock,
                         .compress_stride = kBlock,
                         .block_size = kBlock,
                         .num_blocks = 4,
                         .latest_blocks = 1,
                         .window = kBlock};
  Model model(config);
  const Rows rows = Source(8).draw(kTokens, 32);
  const Score untrained = score(model, rows, {1, 1, 1});
  train(model, {{64, 32, 120}, {128, 16, 40}, {256, 8, 80}, {kTokens, 8, 240, 0.8}});
  const Score trained = score(model, rows, {1, 1, 1}), cut = score(model, rows, {1, 0, 1});
  std::cout << "hit " << untrained.hit << " -> " << trained.hit << ", accuracy " << untrained.accuracy
            << " -> " << trained.accuracy << ", without the selected branch " << cut.accuracy << std::endl;
  EXPECT_LE(untrained.hit, 0.3);
  EXPECT_GE(trained.hit, 0.9);
  EXPECT_GE(trained.accuracy, 0.9);
  EXPECT_LE(cut.accuracy, trained.accuracy - 0.3);
}

}  // namespace
}  // namespace longreach
