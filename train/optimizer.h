// AdamW (arXiv 1711.05101) over runs of parameters, by ATen's fused kernel. What a run becomes does not
// depend on how its parameter is cut.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "checkpoints/sharded_tensors.h"
#include "core/fields.h"
#include "distributed/run.h"
#include "train/runs.h"

namespace longreach {

struct OptimizerConfig {
  std::string name = "AdamW";
  double lr = 1e-3;
  double beta1 = 0.9, beta2 = 0.95, eps = 1e-8;
  double weight_decay = 0.1;
  void fields(FieldVisitor& visit);
};

using NamedParameters = std::vector<std::pair<std::string, at::Tensor>>;

// Parameters that are one rank's alone: each a run.
std::vector<Run> whole_runs(const NamedParameters& parameters);

class AdamW {
 public:
  // The largest of what all ranks have, for decisions that they must take alike.
  using OverRanks = std::function<double(double)>;

  // undecayed: names among the parameters (undecayed_parameters of layers/basic/module.h). largest: where
  // each rank has runs of its own.
  AdamW(const std::vector<Run>& runs, const std::set<std::string>& undecayed, const OptimizerConfig& config,
        OverRanks largest = nullptr);

  // One update from the gradients, whose norm is given, at the given learning rate; a parameter without a
  // gradient is left alone. Returns false, every bit as before, when the update would leave a number that is
  // not finite.
  [[nodiscard]] bool step(double lr, double gradient_norm);
  void zero_grad();

  // State by name, for checkpoints, where it lies: of each run "NAME.exp_avg" and "NAME.exp_avg_sq", cut like
  // it; "NAME.step", which all ranks have.
  RankRuns state() const;
  // The same of whole parameters, as one rank has them.
  NamedParameters whole_state() const;
  // Reads its part. Throws CheckpointError naming a missing tensor or a wrong shape before anything is
  // changed.
  void load(const ShardedTensors& from);

 private:
  struct Slot {
    Run run;
    at::Tensor exp_avg, exp_avg_sq;
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

  double over_ranks(double largest) const { return largest_ ? largest_(largest) : largest; }

  OptimizerConfig config_;
  OverRanks largest_;
  std::vector<Slot> slots_;
  // Bounds on what the slots hold, for stays_finite; negative: not measured yet.
  double largest_parameter_ = -1, largest_average_ = -1;
};

}  // namespace longreach
