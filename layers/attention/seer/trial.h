// Trying other choices of blocks on a trained model, and looking at the maps: for evaluation and plots.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace torch::nn {
class Module;
}

namespace longreach {

// How blocks are ranked: by the gate, at random, the newest ones and the first (window and sink), or by the true
// largest probability of each block (which costs dense attention).
enum class SeerPolicy { gate, random, window, oracle };

struct SeerTrial {
  SeerPolicy policy = SeerPolicy::gate;
  double density = 0.1;  // share of the causal map; SelectionRule::density
  uint64_t seed = 0;     // of SeerPolicy::random
};

// How much of the causal map was read.
struct SeerCount {
  int64_t chosen = 0, causal = 0;  // (row, block) pairs
};

// One row of the batch: [Hg, N, blocks].
struct SeerMaps {
  at::Tensor scores;  // softmax of the gate's scores
  at::Tensor truth;   // what it should be
  at::Tensor chosen;  // bool: what is read
};

// What a layer of SeerAttention offers beside attention.
class SeerLayer {
 public:
  virtual ~SeerLayer() = default;
  // From now on blocks are chosen so; nothing: by the layer's config. Sparse forward passes alone are concerned.
  virtual void set_trial(const std::optional<SeerTrial>& trial) = 0;
  // Of all sparse forward passes since the last call.
  virtual SeerCount take_count() = 0;
  // The next forward pass leaves the maps of the batch's first row here (null: nowhere).
  virtual void record_maps(SeerMaps* maps) = 0;
  virtual int64_t layer() const = 0;
};

// The layers of a model, in order.
std::vector<SeerLayer*> seer_layers(torch::nn::Module& model);

}  // namespace longreach
