// Gates that are taught: a small module inside a layer that learns from the layer's own dense attention what
// is worth reading. The trainer (job.task = "distill"), `eval --tasks gates`, `plot --gate` and `export
// --format gates` know gates through this file alone.
//
// A config whose layers have one declares
//
//   static constexpr TaughtGate gate{...};
//   bool teaches() const;                                  // forward gives the gate's loss, and reads all
//   std::string gate_config(const LayerSite& site) const;  // JSON: its options under the authors' names
//   static Config of_gate_config(const std::string& options);  // the inverse: a layer that reads by the gate
//
// and its module is a GatedLayer too.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace torch::nn {
class Module;
}

namespace longreach {

struct TaughtGate {
  std::string_view module;    // its name among the layer's: parameters are model.layers.I.self_attn.MODULE.*
  std::string_view file;      // where the authors keep the gates of a whole model
  std::string_view teaching;  // the option by which a layer teaches: `mode = "distill"`
};

// How blocks are ranked: by the gate, at random, the newest ones and the first (window and sink), or by the
// true largest probability of each block (which costs dense attention).
enum class GatePolicy { gate, random, window, oracle };

struct GateTrial {
  GatePolicy policy = GatePolicy::gate;
  double density = 0.1;  // share of the causal map; SelectionRule::density
  uint64_t seed = 0;     // of GatePolicy::random
};

// How much of the causal map was read.
struct GateCount {
  int64_t chosen = 0, causal = 0;  // (row, block) pairs
};

// One row of the batch: [Hg, N, blocks].
struct GateMaps {
  at::Tensor scores;  // softmax of the gate's scores
  at::Tensor truth;   // what it should be
  at::Tensor chosen;  // bool: what is read
};

// What a layer with a gate offers beside attention.
class GatedLayer {
 public:
  virtual ~GatedLayer() = default;
  // From now on blocks are chosen so; nothing: by the layer's config. Sparse forward passes alone are
  // concerned.
  virtual void set_trial(const std::optional<GateTrial>& trial) = 0;
  // Of all sparse forward passes since the last call.
  virtual GateCount take_count() = 0;
  // The next forward pass leaves the maps of the batch's first row here (null: nowhere).
  virtual void record_maps(GateMaps* maps) = 0;
  virtual int64_t layer() const = 0;
};

// The layers of a model that have a gate, in order.
std::vector<GatedLayer*> gated_layers(torch::nn::Module& model);

}  // namespace longreach
