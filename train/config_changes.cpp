#include "train/config_changes.h"

#include <algorithm>
#include <tuple>

namespace longreach {
namespace {

// The rows of two configs of the same form whose values differ; prefix: before each key.
std::vector<KeyChange> changed_rows(const Fields& before, const Fields& after, const std::string& prefix) {
  const auto then = help_of(before), now = help_of(after);
  std::vector<KeyChange> changes;
  for (size_t i = 0; i < now.size(); ++i)
    if (then[i].default_value != now[i].default_value)
      changes.push_back({prefix + now[i].key, then[i].default_value, now[i].default_value});
  return changes;
}

std::vector<KeyChange> changed_options(AttentionConfig before, AttentionConfig after) {
  const std::string prefix = "model.attention.";
  if (before.index() != after.index())
    return {{prefix + "kind", std::string(kind_of(before)), std::string(kind_of(after))}};
  const auto fields = [](AttentionConfig& config) {
    return [&](FieldVisitor& visit) { std::visit([&](auto& options) { options.fields(visit); }, config); };
  };
  return changed_rows(fields(before), fields(after), prefix);
}

// "0-2,5"
std::string ranges(const std::vector<int64_t>& layers) {
  std::vector<std::string> parts;
  for (size_t first = 0, end = 0; first < layers.size(); first = end) {
    for (end = first + 1; end < layers.size() && layers[end] == layers[end - 1] + 1;) ++end;
    parts.push_back(end == first + 1 ? text(layers[first]) : text(layers[first], "-", layers[end - 1]));
  }
  return join(parts, ",");
}

std::string value(const std::string& written) { return one_line(written, 80); }

}  // namespace

std::vector<KeyChange> run_changes(RunConfig before, RunConfig after) {
  before.model = after.model = ModelConfig();
  before.job.dump_folder = after.job.dump_folder;
  before.fault = after.fault;
  return changed_rows(fields_of(before), fields_of(after), "");
}

std::vector<KeyChange> model_changes(ModelConfig before, ModelConfig after) {
  const auto then = attention_per_layer(before.attention, before.num_hidden_layers);
  const auto now = attention_per_layer(after.attention, after.num_hidden_layers);
  before.attention.clear();
  after.attention.clear();
  auto changes = changed_rows(fields_of(before), fields_of(after), "model.");
  struct Layers {
    KeyChange change;
    std::vector<int64_t> layers;
  };
  std::vector<Layers> by_change;
  for (size_t layer = 0; layer < std::min(then.size(), now.size()); ++layer)
    for (const KeyChange& change : changed_options(then[layer], now[layer])) {
      const auto known = std::find_if(by_change.begin(), by_change.end(), [&](const Layers& entry) {
        return std::tie(entry.change.key, entry.change.before, entry.change.after) ==
               std::tie(change.key, change.before, change.after);
      });
      (known == by_change.end() ? by_change.emplace_back(Layers{change, {}}) : *known)
          .layers.push_back(static_cast<int64_t>(layer));
    }
  for (const auto& [change, layers] : by_change)
    changes.push_back({text(change.key, layers.size() > 1 ? " (layers " : " (layer ", ranges(layers), ")"),
                       change.before, change.after});
  return changes;
}

std::vector<bool> changed_layers(const ModelConfig& before, const ModelConfig& after) {
  const auto then = attention_per_layer(before.attention, before.num_hidden_layers);
  const auto now = attention_per_layer(after.attention, after.num_hidden_layers);
  std::vector<bool> changed(now.size(), true);
  if (then.size() == now.size())
    std::transform(then.begin(), then.end(), now.begin(), changed.begin(),
                   [](AttentionConfig one, AttentionConfig other) {
                     take_any_run(one);
                     take_any_run(other);
                     return !changed_options(one, other).empty();
                   });
  return changed;
}

std::string described(const KeyChange& change) {
  return text(change.key, ": ", value(change.before), " -> ", value(change.after));
}

std::string contrasted(const std::vector<KeyChange>& changes) {
  std::vector<std::string> parts;
  for (const KeyChange& change : changes)
    parts.push_back(text(change.key, " = ", value(change.before), " there, ", value(change.after), " here"));
  return join(parts, "; ");
}

}  // namespace longreach
