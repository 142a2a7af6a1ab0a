// What an attention mechanism is: the config of one [[model.attention]] table, and what goes with it.
// mechanisms.h holds the closed list, and every kind of the list is checked against this concept.
//
// Required, in layers/attention/NAME/NAME.h:
//   kind, family, summary, source              constants: its name, its heading and its line in README's
//                                              table, its papers
//   fields(visit)                              its options, with defaults, limits and help (core/fields.h)
//   make_attention(config, site)               its module, an Attention (layers/attention/attention.h)
//
// Optional members; a kind without one needs no stub:
//   validate(site)                             options against each other and the layer's sizes
//   limitations()                              what it cannot do, and why (layers/attention/limitation.h)
//   grain()                                    tokens that context parallelism keeps together: its blocks
//                                              at multiples of it within a document. Without it: 1
//   requirement(), take_any_run()              what it needs of a run (layers/attention/requirement.h)
//   gate, teaches(), gate_config(site)         a gate that is taught (layers/attention/common/taught_gates.h)
//   vectors, verify(run)                       reference-vector files of its own (train/verify/case.h)
#pragma once
#include <concepts>
#include <memory>
#include <string_view>

#include "core/fields.h"
#include "layers/attention/attention.h"
#include "layers/basic/layer_site.h"

namespace longreach {

template <class Config>
concept Mechanism = std::default_initializable<Config> && std::copyable<Config> &&
    requires(Config config, const Config& built, FieldVisitor& visit, const LayerSite& site) {
  { Config::kind } -> std::convertible_to<std::string_view>;
  { Config::source } -> std::convertible_to<std::string_view>;
  { Config::family } -> std::convertible_to<std::string_view>;
  { Config::summary } -> std::convertible_to<std::string_view>;
  { config.fields(visit) } -> std::same_as<void>;
  { make_attention(built, site) } -> std::same_as<std::shared_ptr<Attention>>;
};

}  // namespace longreach
