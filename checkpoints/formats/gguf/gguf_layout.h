// Which tensors a model has in a GGUF file, and under which names here.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "models/model_config.h"

namespace longreach {

struct GgufPlace {
  std::string ours, theirs;
  std::vector<int64_t> shape;
  // Heads whose rows lie in the file as pairs that turn together (2i and 2i + 1), here as halves (i and
  // i + D/2); 0: rows lie alike.
  int64_t pair_heads = 0;
};

// Architectures by the name that llama.cpp has for them: "llama", "qwen2", "qwen3". config: with all its
// sizes. In the order of the layers.
std::vector<GgufPlace> gguf_layout(const ModelConfig& config, const std::string& architecture);

at::Tensor pairs_to_halves(const at::Tensor& rows, int64_t heads);
at::Tensor halves_to_pairs(const at::Tensor& rows, int64_t heads);

}  // namespace longreach
