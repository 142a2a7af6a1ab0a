#include "checkpoints/formats/hugging_face_config.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/error.h"

namespace longreach {
namespace {

using Json = nlohmann::json;

constexpr uintmax_t kLargestFile = 16 << 20;

// Typed access to one JSON object, with errors that name file and key.
class Reader {
 public:
  Reader(std::string file, const Json& object, std::string prefix = "")
      : file_(std::move(file)), object_(object), prefix_(std::move(prefix)) {}

  bool has(const char* key) const { return object_.contains(key) && !object_.at(key).is_null(); }

  void read(const char* key, int64_t& value, int64_t low, int64_t high) const {
    if (!has(key)) return;
    const Json& node = object_.at(key);
    const bool fits = node.is_number_unsigned() ? node.get<uint64_t>() <= static_cast<uint64_t>(high)
                                                : node.is_number_integer();
    if (!fits || node.get<int64_t>() < low || node.get<int64_t>() > high)
      fail(key, text("expected an integer from ", low, " to ", high));
    value = node.get<int64_t>();
  }

  void read(const char* key, double& value) const {
    if (!has(key)) return;
    if (!object_.at(key).is_number() || object_.at(key).get<double>() < 0.0)
      fail(key, "expected a number >= 0");
    value = object_.at(key).get<double>();
  }

  void read(const char* key, bool& value) const {
    if (!has(key)) return;
    if (!object_.at(key).is_boolean()) fail(key, "expected true or false");
    value = object_.at(key).get<bool>();
  }

  void read(const char* key, std::string& value) const {
    if (!has(key)) return;
    if (!object_.at(key).is_string()) fail(key, "expected a string");
    value = object_.at(key).get<std::string>();
  }

  // A table, or an empty one when the key is absent.
  Json table(const char* key) const {
    if (!has(key)) return Json::object();
    if (!object_.at(key).is_object()) fail(key, "expected a table");
    return object_.at(key);
  }

  [[noreturn]] void fail(const char* key, const std::string& expected) const {
    std::string found = "nothing";
    if (has(key)) {
      const Json& node = object_.at(key);  // nesting of any depth is not printed
      found =
          node.is_structured() ? node.type_name() : node.dump(-1, ' ', false, Json::error_handler_t::replace);
    }
    throw ConfigError(
        one_line(text(file_, ": `", prefix_, key, "`: found ", found.substr(0, 200), ", ", expected)));
  }

 private:
  std::string file_;
  const Json& object_;
  std::string prefix_;
};

Json parse_file(const std::string& path) {
  std::error_code error;
  const uintmax_t size = std::filesystem::file_size(path, error);
  check<ConfigError>(!error, one_line(path), ": cannot be read (", error.message(), ")");
  check<ConfigError>(size <= kLargestFile, one_line(path), ": ", size,
                     " bytes are too many for a config.json");
  std::ifstream in(path, std::ios::binary);
  check<ConfigError>(in.good(), one_line(path), ": cannot be read");
  Json root;
  try {
    root = Json::parse(in);
  } catch (const Json::exception& failure) {
    throw ConfigError(one_line(text(path, ": is not JSON (", failure.what(), ")")));
  }
  check<ConfigError>(root.is_object(), one_line(path), ": expected a JSON object");
  return root;
}

void read_rope(const std::string& file, const Reader& root, RopeConfig& rope) {
  root.read("rope_theta", rope.theta);
  // transformers 5 keeps everything in rope_parameters; before it was rope_scaling, with `type` before
  // `rope_type`.
  const char* key = root.has("rope_parameters") ? "rope_parameters" : "rope_scaling";
  const Json table = root.table(key);
  const Reader scaling(file, table, text(key, "."));
  scaling.read("rope_theta", rope.theta);
  scaling.read("type", rope.rope_type);
  scaling.read("rope_type", rope.rope_type);
  const std::vector<std::string> types{"default", "linear", "dynamic", "yarn", "llama3"};
  if (std::find(types.begin(), types.end(), rope.rope_type) == types.end())
    scaling.fail(scaling.has("rope_type") ? "rope_type" : "type", text("expected one of ", join(types)));
  scaling.read("factor", rope.factor);
  scaling.read("original_max_position_embeddings", rope.original_max_position_embeddings, 0,
               int64_t{1} << 31);
  scaling.read("low_freq_factor", rope.low_freq_factor);
  scaling.read("high_freq_factor", rope.high_freq_factor);
  scaling.read("beta_fast", rope.beta_fast);
  scaling.read("beta_slow", rope.beta_slow);
  scaling.read("attention_factor", rope.attention_factor);
  for (const char* unsupported : {"mscale", "mscale_all_dim"})
    if (scaling.has(unsupported)) scaling.fail(unsupported, "this variant of yarn is not supported");
  bool truncate = true;
  scaling.read("truncate", truncate);
  if (!truncate) scaling.fail("truncate", "expected true");
}

// Options of the families that this decoder does not have, at any but their plain value.
void refuse_unsupported(const Reader& root, const std::string& type) {
  std::string activation = "silu";
  root.read("hidden_act", activation);
  if (activation != "silu" && activation != "swish") root.fail("hidden_act", "expected silu");
  bool mlp_bias = false;
  root.read("mlp_bias", mlp_bias);
  if (mlp_bias) root.fail("mlp_bias", "expected false");
  bool bias = false;
  root.read("attention_bias", bias);
  if (bias && type != "qwen2")
    root.fail("attention_bias", "expected false: here biases stand on q, k, v alone, as in qwen2");
  double rotary = 1.0;
  root.read("partial_rotary_factor", rotary);
  if (rotary != 1.0) root.fail("partial_rotary_factor", "expected 1");
}

}  // namespace

void read_hugging_face_config(const std::string& path, ModelConfig& config) {
  const std::string file = std::filesystem::is_directory(path) ? path + "/config.json" : path;
  const Json json = parse_file(file);
  const Reader root(file, json);
  std::string type;
  root.read("model_type", type);
  const std::vector<std::string> supported{"llama", "mistral", "qwen2", "qwen3"};
  if (std::find(supported.begin(), supported.end(), type) == supported.end())
    root.fail("model_type", text("expected one of ", join(supported)));
  refuse_unsupported(root, type);
  const int64_t largest = int64_t{1} << 31;
  root.read("vocab_size", config.vocab_size, 1, largest);
  root.read("hidden_size", config.hidden_size, 1, largest);
  root.read("intermediate_size", config.intermediate_size, 1, largest);
  root.read("num_hidden_layers", config.num_hidden_layers, 1, 10000);
  root.read("num_attention_heads", config.num_attention_heads, 1, 65536);
  root.read("num_key_value_heads", config.num_key_value_heads, 1, 65536);
  root.read("head_dim", config.head_dim, 1, 256);
  root.read("max_position_embeddings", config.max_position_embeddings, 1, largest);
  root.read("rms_norm_eps", config.rms_norm_eps);
  root.read("initializer_range", config.initializer_range);
  config.tie_word_embeddings = false;  // Hugging Face's default for these families
  root.read("tie_word_embeddings", config.tie_word_embeddings);
  config.qk_norm = type == "qwen3";
  config.attention_bias = type == "qwen2";
  read_rope(file, root, config.rope);
  bool use_window = type == "mistral";
  root.read("use_sliding_window", use_window);
  if (!use_window || !root.has("sliding_window")) return;
  if (type != "mistral")
    root.fail("sliding_window", "expected use_sliding_window = false, or [[model.attention]] tables");
  SlidingConfig sliding;
  root.read("sliding_window", sliding.window, 1, int64_t{1} << 30);
  config.attention = {{.layers = "all", .config = sliding}};
}

}  // namespace longreach
