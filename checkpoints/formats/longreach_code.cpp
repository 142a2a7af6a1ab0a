#include "checkpoints/formats/longreach_code.h"

#include <set>

#include "checkpoints/formats/modeling_sources.h"
#include "core/config.h"
#include "core/error.h"

namespace longreach {
namespace {

using Json = nlohmann::ordered_json;

// The keys of a config as JSON.
class JsonWriter : public FieldVisitor {
 public:
  explicit JsonWriter(Json& json) : json_(json) {}
  void field(std::string_view name, bool& value, const Field&) override { set(name, value); }
  void field(std::string_view name, int64_t& value, const Field&) override { set(name, value); }
  void field(std::string_view name, double& value, const Field&) override { set(name, value); }
  void field(std::string_view name, std::string& value, const Field&) override { set(name, value); }
  void field(std::string_view name, std::vector<int64_t>& value, const Field&) override { set(name, value); }
  void field(std::string_view name, std::vector<double>& value, const Field&) override { set(name, value); }
  void field(std::string_view name, std::vector<std::string>& value, const Field&) override {
    set(name, value);
  }
  void reject(std::string_view name, const std::string& why) override {
    throw ConfigError(text(name, ": ", why));
  }
  void section(std::string_view name, std::string_view, const Fields& inside) override {
    JsonWriter writer(json_[std::string(name)] = Json::object());
    inside(writer);
  }
  void tables(std::string_view name, std::string_view, const Fields&, size_t count,
              const std::function<void(size_t, FieldVisitor&)>& nth) override {
    Json& list = json_[std::string(name)] = Json::array();
    for (size_t i = 0; i < count; ++i) {
      Json table = Json::object();
      JsonWriter writer(table);
      nth(i, writer);
      list.push_back(std::move(table));
    }
  }

 private:
  template <class T>
  void set(std::string_view name, const T& value) {
    json_[std::string(name)] = value;
  }
  Json& json_;
};

// A value of a key, or a list of such, whose literals are TOML's too.
std::string literal(const std::string& key, const nlohmann::json& value, const std::string& file) {
  bool plain = !value.is_object() && !value.is_null();
  if (value.is_array())
    for (const auto& item : value) plain = plain && !item.is_structured() && !item.is_null();
  check<ConfigError>(plain,
                     one_line(text(file, ": longreach.", key, ": expected a value or a list of values")));
  return value.dump();
}

std::string quoted(const std::string& key) { return nlohmann::json(key).dump(); }

// The keys of [model] as TOML: keys first, then tables, of which none holds another.
std::string toml_of(const nlohmann::json& object, const std::string& file) {
  std::string keys, tables;
  const auto add_table = [&](const std::string& head, const nlohmann::json& table) {
    check<ConfigError>(table.is_object(), one_line(text(file, ": longreach: expected tables in ", head)));
    tables += head + "\n";
    for (const auto& item : table.items())
      tables += quoted(item.key()) + " = " + literal(item.key(), item.value(), file) + "\n";
  };
  for (const auto& item : object.items()) {
    const nlohmann::json& value = item.value();
    const std::string key = quoted(item.key());
    if (value.is_object()) {
      add_table("[" + key + "]", value);
    } else if (value.is_array() && !value.empty() && value.front().is_object()) {
      for (const auto& table : value) add_table("[[" + key + "]]", table);
    } else {
      keys += key + " = " + literal(item.key(), value, file) + "\n";
    }
  }
  return keys + tables;
}

}  // namespace

std::string longreach_code(const ModelConfig& config) {
  const auto& sources = modeling_sources();
  std::string code = sources.at("");
  std::set<std::string> kinds;
  int64_t number = 0;
  for (const AttentionConfig& layer : attention_per_layer(config.attention, config.num_hidden_layers)) {
    const std::string kind(kind_of(layer));
    const auto source = sources.find(kind);
    check<ConfigError>(source != sources.end(), "model.attention: layer ", number, ": kind = \"", kind,
                       "\": no family that transformers knows has it, and it has no Python of its own");
    if (kinds.insert(kind).second) code += source->second;
    ++number;
  }
  return code;
}

nlohmann::ordered_json longreach_config(const ModelConfig& config) {
  ModelConfig by_layer = config;
  by_layer.attention.clear();
  for (const AttentionConfig& layer : attention_per_layer(config.attention, config.num_hidden_layers))
    by_layer.attention.push_back({std::to_string(by_layer.attention.size()), layer});
  Json keys = Json::object();
  JsonWriter writer(keys);
  by_layer.fields(writer);
  keys.erase("config");  // it stands without the file that it was made from
  Json json;
  json["architectures"] = Json::array({"LongreachForCausalLM"});
  json["model_type"] = kLongreachType;
  json["auto_map"] = {{"AutoConfig", "modeling_longreach.LongreachConfig"},
                      {"AutoModelForCausalLM", "modeling_longreach.LongreachForCausalLM"}};
  for (const char* key :
       {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "head_dim", "max_position_embeddings", "tie_word_embeddings"})
    json[key] = keys.at(key);
  json[kLongreachType] = std::move(keys);
  return json;
}

void read_longreach_config(const nlohmann::json& json, const std::string& file, ModelConfig& config) {
  const auto keys = json.find(kLongreachType);
  check<ConfigError>(keys != json.end() && keys->is_object(), one_line(file),
                     ": `longreach`: expected a table");
  ConfigDocument::from_text(toml_of(*keys, one_line(file)), file).read(fields_of(config));
}

}  // namespace longreach
