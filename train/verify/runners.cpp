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
      {"s2_attention", run_s2_attention},
      {"biformer_bra", run_biformer_bra},
      {"topk_token", run_topk_token},
      {"nsa", run_nsa},
      {"seer", run_seer},
  };
  return kRunners;
}

}  // namespace longreach::verify
