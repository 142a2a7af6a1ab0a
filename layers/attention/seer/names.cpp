// The authors' names of the gate's options: config.json of their gates. Those of its weights are the
// parameters' own.
#include <nlohmann/json.hpp>
#include <set>
#include <type_traits>

#include "core/error.h"
#include "layers/attention/seer/gate.h"

namespace longreach {
namespace {

using nlohmann::ordered_json;

constexpr std::string_view kPrefix = "seerattn_";

// Keys of the authors' config, each read once.
class GateOptions {
 public:
  explicit GateOptions(const std::string& options) : json_(ordered_json::parse(options, nullptr, false)) {
    check<ConfigError>(json_.is_object(), "config.json: expected a JSON object");
    for (const auto& [key, value] : json_.items())
      if (key.starts_with(kPrefix)) unread_.insert(key);
  }

  bool has(const std::string& key) const { return json_.contains(text(kPrefix, key)); }

  // Leaves `value` alone where the key is not there.
  template <typename T>
  void take(const std::string& key, T& value) {
    const auto found = json_.find(text(kPrefix, key));
    if (found == json_.end()) return;
    constexpr bool flag = std::is_same_v<T, bool>, real = std::is_floating_point_v<T>,
                   word = std::is_same_v<T, std::string>;
    const bool fits = flag   ? found->is_boolean()
                      : word ? found->is_string()
                      : real ? found->is_number()
                             : found->is_number_integer();
    check<ConfigError>(fits, "config.json: ", kPrefix, key, ": expected ",
                       flag   ? "true or false"
                       : word ? "a string"
                       : real ? "a number"
                              : "an integer",
                       ", found ", one_line(found->dump(), 100));
    value = found->template get<T>();
    unread_.erase(text(kPrefix, key));
  }

  // Those of how the authors' programs run, and others at the value by which they do nothing.
  void pass_over_what_changes_nothing() {
    for (const char* key : {"implementation", "output_sparsity", "training_threshold", "block_slice_mode"})
      unread_.erase(text(kPrefix, key));
    for (const char* key : {"start_layer", "sliding_window_size"}) {
      int64_t value = 0;
      take(key, value);
      check<ConfigError>(value == 0, "config.json: ", kPrefix, key, ": found ", value, ", only 0 is known");
    }
  }

  void expect_all_read() const {
    check<ConfigError>(unread_.empty(), "config.json: ", unread_.empty() ? "" : *unread_.begin(),
                       ": not understood");
  }

 private:
  ordered_json json_;
  std::set<std::string> unread_;
};

// The authors' word for what chooses blocks.
void take_selection(GateOptions& options, std::string& selection) {
  std::string method = "threshold";
  options.take("sparsity_method", method);
  const bool known = method == "threshold" || method == "nz_ratio" || method == "token_budget";
  check<ConfigError>(known, "config.json: ", kPrefix,
                     "sparsity_method: expected threshold, nz_ratio or token_budget", ", found `",
                     one_line(method, 60), "`");
  selection = method == "nz_ratio" ? "density" : method;
}

void take_decode_form(GateOptions& options, SeerConfig& config) {
  config.form = "decode";
  options.take("q_head_pooling_type", config.q_pooling);
  options.take("k_seq_pooling_type", config.k_pooling);
  options.take("use_qk_norm", config.gate_qk_norm);
  options.take("use_rope", config.gate_rope);
  options.take("loss_slice_ratio", config.loss_slice_ratio);
  options.take("token_budget", config.token_budget);
}

void take_prefill_form(GateOptions& options, SeerConfig& config) {
  std::string type;
  options.take("gate_type", type);
  const size_t between = type.find("_K");
  check<ConfigError>(between != std::string::npos, "config.json: ", kPrefix,
                     "gate_type: expected a name such as Qavg_Kmaxminavg, found `", one_line(type, 60), "`");
  config.form = "prefill";
  config.q_pooling = type.substr(0, between);
  config.k_pooling = type.substr(between + 1);
  bool force_double = false;
  options.take("gate_force_double", force_double);
  config.layout = force_double ? "double" : "auto";
  options.take("last_block_dense", config.last_block_dense);
  options.take("nz_ratio", config.density);
}

}  // namespace

SeerConfig SeerConfig::of_gate_config(const std::string& written) {
  GateOptions options(written);
  SeerConfig config;
  options.take("gate_block_size", config.block_size);
  options.take("gate_hidden_size", config.gate_hidden);
  options.take("threshold", config.threshold);
  take_selection(options, config.selection);
  const bool decode = options.has("q_head_pooling_type");
  check<ConfigError>(decode || options.has("gate_type"), "config.json: expected ", kPrefix,
                     "q_head_pooling_type (decode form) or ", kPrefix, "gate_type (prefill form)");
  decode ? take_decode_form(options, config) : take_prefill_form(options, config);
  options.pass_over_what_changes_nothing();
  options.expect_all_read();
  return config;
}

std::string SeerConfig::gate_config(const LayerSite& site) const {
  ordered_json json;
  json["seerattn_gate_block_size"] = block_size;
  json["seerattn_gate_hidden_size"] = gate_hidden;
  json["seerattn_sparsity_method"] = selection == "density" ? "nz_ratio"
                                     : selection == "top_k" ? "token_budget"
                                                            : selection;
  json["seerattn_threshold"] = threshold;
  if (seer_gate_form(*this, site).decode) {
    json["seerattn_q_head_pooling_type"] = q_pooling == "auto" ? "Qproj" : q_pooling;
    json["seerattn_k_seq_pooling_type"] = k_pooling;
    json["seerattn_use_qk_norm"] = gate_qk_norm;
    json["seerattn_use_rope"] = gate_rope;
    json["seerattn_loss_slice_ratio"] = loss_slice_ratio;
    json["seerattn_token_budget"] = selection == "top_k" ? top_k * block_size : token_budget;
  } else {
    json["seerattn_gate_type"] = (q_pooling == "auto" ? "Qavg" : q_pooling) + "_" + k_pooling;
    json["seerattn_gate_force_double"] = layout == "double";
    json["seerattn_last_block_dense"] = last_block_dense;
    json["seerattn_nz_ratio"] = density;
  }
  return json.dump();
}

}  // namespace longreach
