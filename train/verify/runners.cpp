#include "train/verify/runners.h"

namespace longreach::verify {

const std::map<std::string, Runner>& runners() {
  static const std::map<std::string, Runner> kRunners = {
      {"lightning", run_lightning},
      {"retention", run_retention},
      {"simple_gla", run_simple_gla},
      {"sink_window", run_sink_window},
      {"lse_merge", run_lse_merge},
      {"longlora", run_longlora},
      {"seer", run_seer},
  };
  return kRunners;
}

}  // namespace longreach::verify
