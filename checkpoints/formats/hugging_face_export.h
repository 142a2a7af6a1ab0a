// Models in a folder as transformers saves them.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "checkpoints/checkpoint.h"
#include "checkpoints/formats/hugging_face_family.h"
#include "models/model_config.h"

namespace longreach {

struct HuggingFaceExport {
  at::ScalarType dtype = at::kFloat;  // of the weights
  std::optional<int64_t> bos, eos;    // the tokenizer's
  // The tokenizer's files by name; a generation_config.json among them wins over what is made here.
  std::map<std::string, std::string> files;
  std::string family = kAnyFamily;      // one of hugging_face_targets()
  int64_t shard_bytes = 5'000'000'000;  // of a file of weights; a larger tensor has one of its own
};

// What a folder may be asked to be: model_type of a family (hugging_face_family.h); "longreach", a folder
// with Python of our own (longreach_code.h); "auto", that of transformers where there is one, else
// "longreach".
const std::vector<std::string>& hugging_face_targets();

// Writes config.json, generation_config.json, weights and options.files into an existing folder, flushed.
// Throws ConfigError naming what options.family does not have, or the kind of attention that has neither
// family nor Python; CheckpointError when something cannot be written.
void write_hugging_face(const ModelConfig& config, const NamedTensors& tensors,
                        const HuggingFaceExport& options, const std::string& folder);

// The same refusal, before there is anything to write.
void expect_hugging_face(const ModelConfig& config, const std::string& family = kAnyFamily);

}  // namespace longreach
