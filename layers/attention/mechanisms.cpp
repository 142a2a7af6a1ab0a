// Parsing, printing and building from the closed list of mechanisms.
#include "layers/attention/mechanisms.h"

#include <algorithm>
#include <charconv>
#include <numeric>

#include "core/promise.h"

namespace longreach {
namespace {

template <Mechanism... Kinds>
constexpr bool are_mechanisms(const std::variant<Kinds...>*) {
  return true;
}
static_assert(are_mechanisms(static_cast<AttentionConfig*>(nullptr)));

template <size_t... I>
std::vector<AttentionConfig> each_kind(std::index_sequence<I...>) {
  return {AttentionConfig(std::in_place_index<I>)...};
}

int64_t parse_layer(std::string_view word, const std::string& layers, int64_t num_layers) {
  while (!word.empty() && word.front() == ' ') word.remove_prefix(1);
  while (!word.empty() && word.back() == ' ') word.remove_suffix(1);
  int64_t value = -1;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
  check<ConfigError>(error == std::errc() && end == word.data() + word.size() && value >= 0, "layers = \"",
                     layers, "\": expected \"all\" or a list such as \"0-2\" or \"0,3,6-8\"");
  check<ConfigError>(value < num_layers, "layers = \"", layers, "\": layer ", value,
                     " does not exist; the model has ", num_layers, " layers, 0 to ", num_layers - 1);
  return value;
}

}  // namespace

std::vector<AttentionConfig> all_attention_configs() {
  return each_kind(std::make_index_sequence<std::variant_size_v<AttentionConfig>>());
}

std::string_view family_of(const AttentionConfig& config) {
  return std::visit([](const auto& kind) { return kind.family; }, config);
}

std::string_view kind_of(const AttentionConfig& config) {
  return std::visit([](const auto& kind) { return std::string_view(kind.kind); }, config);
}

std::vector<std::string> attention_kinds() {
  std::vector<std::string> kinds;
  for (const auto& config : all_attention_configs()) kinds.emplace_back(kind_of(config));
  return kinds;
}

AttentionConfig make_attention_config(std::string_view kind) {
  for (auto& config : all_attention_configs())
    if (kind_of(config) == kind) return config;
  const auto kinds = attention_kinds();
  throw ConfigError(text("`", kind, "` is no attention mechanism", did_you_mean(kind, kinds),
                         " (built: ", join(kinds), ")"));
}

std::string_view AttentionEntry::kind() const { return kind_of(config); }

void AttentionEntry::fields(FieldVisitor& visit) {
  std::string name(kind());
  visit.field("kind", name,
              {.help = "attention mechanism", .allowed = one_of(attention_kinds()), .required = true});
  if (name != kind()) config = make_attention_config(name);
  visit.field("layers", layers, {.help = "layers it serves: \"0-2\", \"0,3,6-8\" or \"all\""});
  std::visit([&](auto& options) { options.fields(visit); }, config);
}

std::vector<int64_t> parse_layers(const std::string& layers, int64_t num_layers) {
  std::vector<int64_t> numbers;
  if (layers == "all") {
    for (int64_t i = 0; i < num_layers; ++i) numbers.push_back(i);
    return numbers;
  }
  for (size_t start = 0; start <= layers.size();) {
    const size_t comma = std::min(layers.find(',', start), layers.size());
    const std::string_view item = std::string_view(layers).substr(start, comma - start);
    const size_t dash = item.find('-');
    const int64_t first = parse_layer(item.substr(0, dash), layers, num_layers);
    const int64_t last =
        dash == std::string_view::npos ? first : parse_layer(item.substr(dash + 1), layers, num_layers);
    check<ConfigError>(first <= last, "layers = \"", layers, "\": ", first, "-", last, " runs backwards");
    for (int64_t i = first; i <= last; ++i) numbers.push_back(i);
    start = comma + 1;
  }
  return numbers;
}

std::vector<AttentionConfig> attention_per_layer(const std::vector<AttentionEntry>& entries,
                                                 int64_t num_layers) {
  if (entries.empty()) return std::vector<AttentionConfig>(num_layers, DenseConfig{});
  std::vector<std::optional<AttentionConfig>> chosen(num_layers);
  for (const auto& entry : entries) {
    for (const int64_t layer : parse_layers(entry.layers, num_layers)) {
      check<ConfigError>(!chosen[layer], "model.attention: layer ", layer, " is named twice (`",
                         chosen[layer] ? kind_of(*chosen[layer]) : "", "` and `", entry.kind(), "`)");
      chosen[layer] = entry.config;
    }
  }
  std::vector<AttentionConfig> result;
  for (int64_t layer = 0; layer < num_layers; ++layer) {
    check<ConfigError>(chosen[layer].has_value(), "model.attention: no mechanism is given for layer ", layer,
                       " of ", num_layers);
    result.push_back(*chosen[layer]);
  }
  return result;
}

std::vector<Limitation> limitations_of(const AttentionConfig& config) {
  return std::visit([](const auto& kind) { return limitations_of(kind); }, config);
}

int64_t grain_of(const AttentionConfig& config) {
  return std::visit(
      [](const auto& kind) -> int64_t {
        if constexpr (requires { kind.grain(); }) return kind.grain();
        return 1;
      },
      config);
}

int64_t context_grain(const std::vector<AttentionEntry>& entries) {
  int64_t grain = 64;  // of operators' tiles
  for (const AttentionEntry& entry : entries) grain = std::lcm(grain, grain_of(entry.config));
  return grain;
}

int64_t key_heads(const AttentionConfig& config, int64_t num_heads, int64_t num_kv_heads) {
  return std::visit(
      [&](const auto& kind) {
        if constexpr (requires { kind.grouped_heads; }) return kind.grouped_heads ? num_kv_heads : num_heads;
        return num_kv_heads;
      },
      config);
}

std::optional<Requirement> requirement_of(const AttentionConfig& config) {
  return std::visit(
      [](const auto& kind) -> std::optional<Requirement> {
        if constexpr (requires { kind.requirement(); }) return kind.requirement();
        return std::nullopt;
      },
      config);
}

void take_any_run(AttentionConfig& config) {
  std::visit(
      [](auto& kind) {
        if constexpr (requires { kind.take_any_run(); }) kind.take_any_run();
      },
      config);
}

std::optional<TaughtGate> gate_of(const AttentionConfig& config) {
  return std::visit(
      [](const auto& kind) -> std::optional<TaughtGate> {
        if constexpr (requires { kind.gate; }) return kind.gate;
        return std::nullopt;
      },
      config);
}

bool teaches_gate(const AttentionConfig& config) {
  return std::visit(
      [](const auto& kind) {
        if constexpr (requires { kind.teaches(); }) return kind.teaches();
        return false;
      },
      config);
}

std::string gate_config(const AttentionConfig& config, const LayerSite& site) {
  return std::visit(
      [&](const auto& kind) -> std::string {
        if constexpr (requires { kind.gate_config(site); }) return kind.gate_config(site);
        throw BrokenPromise(bug_report(text(kind.kind, " is asked for the options of a gate, and has none")));
      },
      config);
}

AttentionConfig attention_of_gates(std::string_view file, const std::string& options) {
  for (const AttentionConfig& config : all_attention_configs()) {
    const auto found = std::visit(
        [&](const auto& kind) -> std::optional<AttentionConfig> {
          if constexpr (requires { kind.of_gate_config(options); })
            if (kind.gate.file == file) return kind.of_gate_config(options);
          return std::nullopt;
        },
        config);
    if (found) return *found;
  }
  throw ConfigError(text(file, ": no kind of attention keeps its gates in a file of this name"));
}

std::string kinds_with_gates() {
  std::vector<std::string> kinds;
  for (const auto& config : all_attention_configs())
    if (gate_of(config)) kinds.push_back(text("kind = \"", kind_of(config), "\""));
  return join(kinds, " or ");
}

void expect_ability(const std::vector<AttentionEntry>& entries, Ability ability, std::string_view asked) {
  for (const auto& entry : entries)
    expect_ability(entry.kind(), limitations_of(entry.config), ability, asked);
}

void expect_fits(const AttentionConfig& config, const LayerSite& site) {
  std::visit(
      [&](const auto& kind) {
        if constexpr (requires { kind.validate(site); }) kind.validate(site);
      },
      config);
}

std::shared_ptr<Attention> make_attention(const AttentionConfig& config, const LayerSite& site) {
  return std::visit([&](const auto& kind) { return make_attention(kind, site); }, config);
}

}  // namespace longreach
