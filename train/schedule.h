// The learning rate of each step.
#pragma once
#include <cstdint>
#include <string>

#include "core/fields.h"

namespace longreach {

struct ScheduleConfig {
  std::string decay_type = "cosine";
  int64_t warmup_steps = 100;
  double decay_ratio = 0.1;
  double lr_min = 0.1;
  void fields(FieldVisitor& visit);
};

// Factor of the peak learning rate at `step` (1-based) of `steps`:
//   warm-up    step / warmup_steps
//   cosine     1 -> lr_min over the rest;  linear: the same, straight;  constant: 1
//   wsd        1, then straight to lr_min over the last decay_ratio of all steps (arXiv 2404.06395)
double learning_rate_factor(const ScheduleConfig& config, int64_t step, int64_t steps);

}  // namespace longreach
