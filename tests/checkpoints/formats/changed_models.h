// Small models for what is written for other programs, and whether our reader makes the same of it.
#pragma once
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <utility>

#include "checkpoints/formats/foreign_model.h"
#include "checkpoints/formats/hugging_face_export.h"
#include "core/config.h"
#include "models/transformer.h"
#include "tests/support/small_model.h"

namespace longreach {

using Change = void (*)(ModelConfig&);

inline ModelConfig changed(Change change) {
  ModelConfig config = test::small_model();
  config.max_position_embeddings = 128;
  change(config);
  config.resolve(64);
  return config;
}

inline AttentionEntry layer(const char* layers, AttentionConfig config) {
  return {layers, std::move(config)};
}

// Keys whose values follow from others differ in what they are written as, not in what they mean.
inline std::string said(ModelConfig config) {
  std::sort(config.attention.begin(), config.attention.end(),
            [](const auto& a, const auto& b) { return a.layers < b.layers; });
  if (config.attention.size() == 1 && config.attention[0].kind() == "dense") config.attention.clear();
  return to_toml(fields_of(config));
}

inline NamedTensors tensors_of(const ModelConfig& config) {
  const Transformer model(config, 3);
  NamedTensors tensors;
  for (const auto& item : model.named_parameters()) tensors.emplace_back(item.key(), item.value().detach());
  return tensors;
}

inline void expect_read_back(const ModelConfig& config, const NamedTensors& tensors,
                             const std::string& folder) {
  ForeignModel read = open_foreign_model(folder);
  read.config.resolve(64);
  EXPECT_EQ(said(read.config), said(config));
  EXPECT_EQ(read.tensors->names().size(), tensors.size());
  for (const auto& [name, tensor] : tensors)
    EXPECT_TRUE(at::equal(read.tensors->tensor(name), tensor)) << name;
}

}  // namespace longreach
