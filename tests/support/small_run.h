// Runs of the small model on a few documents, for tests of whole steps.
#pragma once
#include <memory>
#include <vector>

#include "data/loader.h"
#include "tests/data/fixtures.h"
#include "tests/support/small_model.h"
#include "train/run_config.h"

namespace longreach::test {

// A row of `tokens` a micro-batch.
inline RunConfig small_run(int64_t tokens, const std::vector<AttentionEntry>& attention) {
  RunConfig config;
  config.model = small_model();
  config.model.max_position_embeddings = tokens;
  config.model.attention = attention;
  config.model.resolve(256);
  config.training.seq_len = tokens;
  config.training.batch_size = 1;
  return config;
}

// A state and a window.
inline RunConfig small_hybrid_run(int64_t tokens) {
  return small_run(tokens, {{.layers = "0", .config = LightningConfig{}},
                            {.layers = "1", .config = SlidingConfig{.window = 16}}});
}

// Rows of `tokens` of documents with these bounds.
inline data::TrainLoader small_loader(int64_t tokens, const std::vector<int64_t>& bounds) {
  std::vector<data::Token> text(static_cast<size_t>(bounds.back()));
  for (size_t i = 0; i < text.size(); ++i) text[i] = static_cast<data::Token>(i * i % 61);
  const auto source = std::make_shared<data::testing::MemorySource>(text, bounds);
  return {{std::make_shared<data::testing::ByteLevel>(), {source}, {}, {1.0}},
          {.seq_len = tokens, .seed = 3}};
}

}  // namespace longreach::test
