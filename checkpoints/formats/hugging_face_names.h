// Names of tensors in Hugging Face folders, where a family's are not ours, and what lies beside the weights.
#pragma once
#include <string>

#include "checkpoints/checkpoint.h"
#include "models/model_config.h"

namespace longreach {

// Ours for a tensor of a folder: the feed-forward block of MiniMax's only expert, and the embedding, norms
// and attention of flash-linear-attention's models; others as they are.
std::string our_name(const std::string& theirs);

// Whether a tensor of a folder is none of the model's: buffers that follow from the config
// (rotary_emb.inv_freq, slopes and decays of MiniMax), and the router of a single expert, which decides
// nothing.
bool follows_from_config(const std::string& theirs);

// A model's tensors as a family (hugging_face_family.h) stores them: under its names, and with what follows
// from the config where its class expects that in the file. `family`: "longreach" for one of none.
NamedTensors hugging_face_tensors(const std::string& family, const ModelConfig& config,
                                  const NamedTensors& tensors);

// Tokens of a block of MiniMax's lightning attention there, its `block_size`: the buffers of a layer grow
// with its square, and results do not depend on it.
inline constexpr int64_t kMinimaxBlock = 64;

}  // namespace longreach
