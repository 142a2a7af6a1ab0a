// The closed list of attention mechanisms: two lines each, an include and a place in the variant. Everything
// that must know all of them (parsing, printing, `longreach info`, the matrix tests) reads this variant; what
// is no Mechanism does not compile.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "core/fields.h"
#include "layers/attention/biformer/biformer.h"
#include "layers/attention/common/taught_gates.h"
#include "layers/attention/dense/dense.h"
#include "layers/attention/infllm/infllm.h"
#include "layers/attention/lightning/lightning.h"
#include "layers/attention/limitation.h"
#include "layers/attention/mechanism.h"
#include "layers/attention/nsa/nsa.h"
#include "layers/attention/requirement.h"
#include "layers/attention/s2/s2.h"
#include "layers/attention/seer/seer.h"
#include "layers/attention/sliding/sliding.h"
#include "layers/basic/layer_site.h"

namespace longreach {

// clang-format off
using AttentionConfig = std::variant<
    DenseConfig  // stays: it is what a model has where nothing is named
    , SlidingConfig
    , LightningConfig
    , SeerConfig
    , NsaConfig
    , S2Config
    , BiformerConfig
    , InfllmConfig
    >;
// clang-format on

// One [[model.attention]] table: which layers, which mechanism, its options.
struct AttentionEntry {
  std::string layers = "all";  // "0-2", "0,3,6-8" or "all"
  AttentionConfig config;

  std::string_view kind() const;
  // Visits `kind`, `layers`, then the options of that kind. An unknown kind is rejected with the nearest
  // name.
  void fields(FieldVisitor& visit);
};

// Every kind in the order of the variant, default-constructed.
std::vector<AttentionConfig> all_attention_configs();
std::vector<std::string> attention_kinds();
AttentionConfig make_attention_config(std::string_view kind);  // throws ConfigError with the nearest name

std::string_view kind_of(const AttentionConfig& config);
std::string_view family_of(const AttentionConfig& config);
std::vector<Limitation> limitations_of(const AttentionConfig& config);

// What a config's blocks of tokens divide, and the least that all layers of a model and the operators' tiles
// divide: where context parallelism may cut a document.
int64_t grain_of(const AttentionConfig& config);
int64_t context_grain(const std::vector<AttentionEntry>& entries);

// Heads with keys of their own, which ranks may share out: the model's num_key_value_heads, but for kinds
// whose every head has (`grouped_heads = false`).
int64_t key_heads(const AttentionConfig& config, int64_t num_heads, int64_t num_kv_heads);

// What options of a config need of the run around it (layers/attention/requirement.h), and a config without
// such options.
std::optional<Requirement> requirement_of(const AttentionConfig& config);
void take_any_run(AttentionConfig& config);

// The gate of a kind (layers/attention/common/taught_gates.h), nothing for kinds without one; whether a layer
// of this config teaches its gate; the gate's options under its authors' names, a JSON object, for kinds with
// a gate alone.
std::optional<TaughtGate> gate_of(const AttentionConfig& config);
bool teaches_gate(const AttentionConfig& config);
std::string gate_config(const AttentionConfig& config, const LayerSite& site);
// The inverse, for the kind whose authors keep gates in a file of this name (TaughtGate::file). Throws
// ConfigError naming the key that is missing, unknown or of a wrong type.
AttentionConfig attention_of_gates(std::string_view file, const std::string& options);
// kind = "A" or kind = "B": those with a gate.
std::string kinds_with_gates();

// The layer numbers of "0-2", "0,3,6-8" or "all" among num_layers. Throws ConfigError for anything else.
std::vector<int64_t> parse_layers(const std::string& layers, int64_t num_layers);

// One config a layer: every layer must be named exactly once. An empty list is dense everywhere.
std::vector<AttentionConfig> attention_per_layer(const std::vector<AttentionEntry>& entries,
                                                 int64_t num_layers);

// Throws ConfigError that begins with `asked` when one of the mechanisms of a model lacks the ability, with
// the reason that it gives.
void expect_ability(const std::vector<AttentionEntry>& entries, Ability ability, std::string_view asked);

// Throws ConfigError for keys that exclude each other or do not fit the sizes of the layer: what the config's
// validate(site) refuses, where it has one. Builds nothing.
void expect_fits(const AttentionConfig& config, const LayerSite& site);

// Builds the module of one layer.
std::shared_ptr<Attention> make_attention(const AttentionConfig& config, const LayerSite& site);

}  // namespace longreach
