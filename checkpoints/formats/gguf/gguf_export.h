// Writing models as GGUF files.
#pragma once
#include <map>
#include <string>

#include "checkpoints/checkpoint_writer.h"
#include "models/model_config.h"

namespace longreach {

struct GgufOptions {
  std::string type = "F16";  // F32 | F16 | Q8_0: of matrices; vectors are F32
  std::string name;          // general.name; empty: none
};

// Throws ConfigError naming the key of [model] that GGUF has no words for: kinds of attention other than
// dense, layers without rotary embedding, and what the architectures lack that llama.cpp runs (llama, qwen2
// and qwen3, of which the first that fits is taken).
std::string gguf_architecture(const ModelConfig& config);

// config: resolved. tensors: those of the model and no others, in any order and floating dtype. tokenizer:
// files by name, as in ForeignModel. One tensor at a time is converted; Q8_0 rounds as ggml does, and rows
// that are no multiple of 32 values are F16 then. The file appears whole or not at all. Throws ConfigError,
// and CheckpointError when `path` exists, cannot be written, or a tensor is missing, too many, of another
// shape or beyond what the type holds.
void write_gguf(const std::string& path, const ModelConfig& config, const NamedTensors& tensors,
                const std::map<std::string, std::string>& tokenizer, const GgufOptions& options = {});

}  // namespace longreach
