// AdamW (arXiv 1711.05101) over named parameters, by ATen's fused kernel; global-norm clipping.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "core/fields.h"

namespace longreach {

struct OptimizerConfig {
  std::string name = "AdamW";
  double lr = 1e-3;
  double beta1 = 0.9, beta2 = 0.95, eps = 1e-8;
  double weight_decay = 0.1;
  void fields(FieldVisitor& visit);
};

using NamedParameters = std::vector<std::pair<std::string, at::Tensor>>;

// Gradients of a set of parameters, seen as one vector.
struct GradientNorm {
  double norm = 0.0;
  std::string first_nonfinite;  // the first parameter whose gradient is not finite; empty when all are
};
GradientNorm gradient_norm(const NamedParameters& parameters);
// Multiplies every gradient by max_norm / norm when norm is larger (max_norm 0: never). Returns the norm that
// is left.
double clip_gradients(const NamedParameters& parameters, double norm, double max_norm);

class AdamW {
 public:
  // undecayed: names among the parameters (undecayed_parameters of layers/basic/module.h).
  AdamW(NamedParameters parameters, const std::set<std::string>& undecayed, const OptimizerConfig& config);

  // One update from the gradients, whose norm is given, at the given learning rate; a parameter without a
  // gradient is left alone. Returns false, every bit as before, when the update would leave a number that is
  // not finite.
  [[nodiscard]] bool step(double lr, double gradient_norm);
  void zero_grad();

  // State by name ("NAME.exp_avg", "NAME.exp_avg_sq", "NAME.step"), for checkpoints. load() throws
  // CheckpointError naming a missing tensor or a wrong shape before anything is changed.
  NamedParameters state() const;
  void load(const NamedParameters& state);

 private:
  struct Slot {
    std::string name;
    at::Tensor parameter, exp_avg, exp_avg_sq;
    at::Tensor step;  // float32 on the device of the parameter, where the fused kernel reads it
    bool decays;
  };
  void update(double lr);
  void update_group(const std::vector<Slot*>& slots, double lr, double weight_decay);
  // Whether a bound on the update proves that every number stays finite.
  bool stays_finite(double lr, double gradient_norm) const;
  std::vector<at::Tensor> parameters() const;
  std::vector<at::Tensor> tensors() const;  // all that an update changes
  void measure();

  OptimizerConfig config_;
  std::vector<Slot> slots_;
  // Bounds on what the slots hold, for stays_finite; negative: not measured yet.
  double largest_parameter_ = -1, largest_average_ = -1;
};

}  // namespace longreach
