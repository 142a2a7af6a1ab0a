#include "train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace longreach {

void ScheduleConfig::fields(FieldVisitor& visit) {
  visit.field("decay_type", decay_type,
              {.help = "shape after warm-up", .allowed = one_of({"cosine", "linear", "wsd", "constant"})});
  visit.field("warmup_steps", warmup_steps, {.help = "steps of linear warm-up", .allowed = at_least(0)});
  visit.field("decay_ratio", decay_ratio,
              {.help = "wsd: share of all steps that decays", .allowed = real_between(0, 1)});
  visit.field("lr_min", lr_min,
              {.help = "last learning rate as a fraction of the peak", .allowed = real_between(0, 1)});
}

double learning_rate_factor(const ScheduleConfig& config, int64_t step, int64_t steps) {
  if (step < config.warmup_steps) return static_cast<double>(step) / static_cast<double>(config.warmup_steps);
  if (config.decay_type == "constant") return 1.0;
  double first = static_cast<double>(config.warmup_steps);
  if (config.decay_type == "wsd")
    first = std::max(first, static_cast<double>(steps) * (1.0 - config.decay_ratio));
  const double span = std::max(static_cast<double>(steps) - first, 1.0);
  const double progress = std::clamp((static_cast<double>(step) - first) / span, 0.0, 1.0);
  const double left =
      config.decay_type == "cosine" ? 0.5 * (1.0 + std::cos(std::numbers::pi * progress)) : 1.0 - progress;
  return config.lr_min + (1.0 - config.lr_min) * left;
}

}  // namespace longreach
