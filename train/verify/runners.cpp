#include "train/verify/runners.h"

#include <variant>

#include "layers/attention/mechanisms.h"
#include "train/verify/operators.h"

namespace longreach::verify {
namespace {

using Runners = std::map<std::string, Runner, std::less<>>;

template <class Kind>
void add_vectors_of(const Kind&, Runners& all) {
  if constexpr (requires(Case & run) { Kind::verify(run); }) {
    constexpr bool chooses = requires { Kind::chooses_from_scores; };
    for (const std::string_view name : Kind::vectors) all[std::string(name)] = {Kind::verify, chooses};
  }
}

Runners make_runners() {
  Runners all = {
      {"retention", {verify_retention, false}},  {"simple_gla", {verify_simple_gla, false}},
      {"lse_merge", {verify_lse_merge, false}},  {"longlora", {verify_longlora, false}},
      {"topk_token", {verify_topk_token, true}},
  };
  for (const AttentionConfig& config : all_attention_configs())
    std::visit([&](const auto& kind) { add_vectors_of(kind, all); }, config);
  return all;
}

}  // namespace

const Runners& runners() {
  static const Runners kRunners = make_runners();
  return kRunners;
}

}  // namespace longreach::verify
