#include "checkpoints/formats/gguf/gguf_model.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>

#include "checkpoints/formats/gguf/gguf_file.h"
#include "checkpoints/formats/gguf/gguf_layout.h"
#include "checkpoints/formats/gguf/gguf_rope.h"
#include "checkpoints/formats/gguf/gguf_tokenizer.h"
#include "checkpoints/formats/renamed_tensors.h"
#include "core/error.h"

namespace longreach {
namespace {

constexpr int64_t kLargest = int64_t{1} << 31;
constexpr const char* kRopeFreqs = "rope_freqs.weight";
// Two numbers are one: they went through float32.
bool about(double a, double b) { return std::abs(a - b) <= 1e-6 * std::abs(b); }

// The keys of one architecture, by their names without it. Remembers which were asked for.
class Sizes {
 public:
  Sizes(const GgufKeys& keys, std::string architecture)
      : keys_(keys), architecture_(std::move(architecture)) {}

  std::string name(std::string_view key) const { return text(architecture_, ".", key); }
  bool has(std::string_view key) {
    known_.insert(name(key));
    return keys_.has(name(key));
  }
  int64_t integer(std::string_view key, int64_t high) {
    has(key);
    return keys_.integer(name(key), 1, high);
  }
  int64_t integer(std::string_view key, int64_t high, int64_t absent) {
    return has(key) ? integer(key, high) : absent;
  }
  double real(std::string_view key, double low, double absent) {
    if (!has(key)) return absent;
    const double value = keys_.real(name(key));
    if (value < low) fail(key, text("a number from ", low, " on"));
    return value;
  }
  std::string text_or(std::string_view key, const char* absent) {
    return has(key) ? keys_.text(name(key)) : absent;
  }
  // What cannot be anything else here.
  void expect(std::string_view key, int64_t value) {
    if (has(key) && keys_.integer(name(key), 0, kLargest) != value) fail(key, text(value));
  }
  void expect_real(std::string_view key, double value) {
    if (has(key) && !about(keys_.real(name(key)), value)) fail(key, text(value));
  }
  void expect_true(std::string_view key) {
    if (has(key) && !keys_.boolean(name(key))) fail(key, "true");
  }
  [[noreturn]] void fail(std::string_view key, const std::string& expected) const {
    keys_.fail(name(key), expected);
  }
  const std::set<std::string>& known() const { return known_; }

 private:
  const GgufKeys& keys_;
  std::string architecture_;
  std::set<std::string> known_;
};

void read_heads(Sizes& sizes, ModelConfig& config) {
  config.num_attention_heads = sizes.integer("attention.head_count", 65536);
  config.num_key_value_heads = sizes.integer("attention.head_count_kv", 65536, config.num_attention_heads);
  if (config.num_attention_heads % config.num_key_value_heads != 0)
    sizes.fail("attention.head_count_kv", text("a divisor of ", config.num_attention_heads));
  const bool divides = config.hidden_size % config.num_attention_heads == 0;
  if (!divides && !sizes.has("attention.key_length"))
    sizes.fail("attention.head_count",
               text("a divisor of ", sizes.name("embedding_length"), ", or ", "attention.key_length"));
  config.head_dim =
      sizes.integer("attention.key_length", 256, config.hidden_size / config.num_attention_heads);
  if (config.head_dim > 256 || config.head_dim % 2 != 0)
    sizes.fail(sizes.has("attention.key_length") ? "attention.key_length" : "attention.head_count",
               text("an even size of heads up to 256, which is ", config.head_dim));
  sizes.expect("attention.value_length", config.head_dim);
  sizes.expect("rope.dimension_count", config.head_dim);
}

void read_sizes(Sizes& sizes, ModelConfig& config) {
  config.max_position_embeddings = sizes.integer("context_length", kLargest);
  config.hidden_size = sizes.integer("embedding_length", kLargest);
  config.num_hidden_layers = sizes.integer("block_count", 10000);
  config.intermediate_size = sizes.integer("feed_forward_length", kLargest);
  read_heads(sizes, config);
  if (!sizes.has("attention.layer_norm_rms_epsilon"))
    sizes.fail("attention.layer_norm_rms_epsilon", "a number");
  config.rms_norm_eps = sizes.real("attention.layer_norm_rms_epsilon", 0.0, 0.0);
  sizes.expect("expert_count", 0);
  sizes.expect("expert_used_count", 0);
  sizes.expect("pooling_type", 0);
  sizes.expect_true("attention.causal");
}

void read_yarn(Sizes& sizes, RopeConfig& rope) {
  sizes.expect_real("rope.scaling.yarn_ext_factor", 1.0);
  sizes.expect_real("rope.scaling.yarn_log_multiplier", 0.0);
  rope.beta_fast = sizes.real("rope.scaling.yarn_beta_fast", 1e-6, rope.beta_fast);
  rope.beta_slow = sizes.real("rope.scaling.yarn_beta_slow", 1e-6, rope.beta_slow);
  const double factor = sizes.real("rope.scaling.attn_factor", 1e-6, 1.0) *
                        sizes.real("rope.scaling.yarn_attn_factor", 1e-6, 1.0);
  if (!about(factor, 1.0)) rope.attention_factor = factor * (0.1 * std::log(rope.factor) + 1.0);
}

void read_rope(const GgufFile& file, Sizes& sizes, int64_t head_dim, RopeConfig& rope) {
  rope.theta = sizes.real("rope.freq_base", 1.0, 10000.0);
  const bool scaled = sizes.has("rope.scaling.factor") || sizes.has("rope.scale_linear");
  const std::string type = sizes.text_or("rope.scaling.type", scaled ? "linear" : "none");
  sizes.has("rope.scaling.finetuned");
  rope.factor = sizes.real("rope.scaling.factor", 1.0, sizes.real("rope.scale_linear", 1.0, 1.0));
  rope.original_max_position_embeddings = sizes.integer("rope.scaling.original_context_length", kLargest, 0);
  if (type == "linear" || type == "yarn") {
    rope.rope_type = type;
    if (type == "yarn") read_yarn(sizes, rope);
  } else if (type != "none") {
    sizes.fail("rope.scaling.type", "none, linear or yarn");
  }
  if (type != "yarn") sizes.expect_real("rope.scaling.attn_factor", 1.0);
  if (type == "none") rope.factor = 1.0;
  if (!file.contains(kRopeFreqs)) return;
  const std::string who = text(file.keys().path(), ": `", kRopeFreqs, "`: ");
  check<CheckpointError>(type == "none", one_line(who), "beside ", sizes.name("rope.scaling.type"), " = ",
                         one_line(type, 50), ", one of which is understood");
  check<CheckpointError>(file.shape(kRopeFreqs) == std::vector<int64_t>{head_dim / 2}, one_line(who),
                         "has the shape ", at::IntArrayRef(file.shape(kRopeFreqs)), ", expected ",
                         head_dim / 2);
  const at::Tensor tensor = file.tensor(kRopeFreqs);
  const float* values = tensor.const_data_ptr<float>();
  check<CheckpointError>(find_llama3({values, values + head_dim / 2}, head_dim, rope), one_line(who),
                         "is no scaling of the kind `llama3`, the only one that is understood");
}

// Which of its optional parts a model has shows in its tensors.
void read_parts(const GgufFile& file, const std::string& architecture, ModelConfig& config) {
  config.tie_word_embeddings = !file.contains("output.weight");
  config.qk_norm = architecture == "qwen3";
  const bool llama = architecture == "llama";
  config.attention_bias = architecture == "qwen2" || (llama && file.contains("blk.0.attn_q.bias"));
  config.attention_output_bias = llama && file.contains("blk.0.attn_output.bias");
  config.mlp_bias = llama && file.contains("blk.0.ffn_down.bias");
}

std::shared_ptr<const TensorSource> under_our_names(const std::shared_ptr<const GgufFile>& file,
                                                    const ModelConfig& config,
                                                    const std::string& architecture) {
  auto tensors = std::make_shared<RenamedTensors>(file);
  std::set<std::string> known{kRopeFreqs};
  for (const GgufPlace& place : gguf_layout(config, architecture)) {
    const std::string who = one_line(text(file->keys().path(), ": `", place.theirs, "`"));
    check<CheckpointError>(file->contains(place.theirs), who, ": is missing");
    check<CheckpointError>(file->shape(place.theirs) == place.shape, who, ": has the shape ",
                           at::IntArrayRef(file->shape(place.theirs)), ", the sizes give ",
                           at::IntArrayRef(place.shape));
    known.insert(place.theirs);
    RenamedTensors::Origin origin{.name = place.theirs, .shape = place.shape, .change = {}};
    if (const int64_t heads = place.pair_heads; heads > 0)
      origin.change = [heads](const at::Tensor& rows) { return pairs_to_halves(rows, heads); };
    tensors->add(place.ours, std::move(origin));
  }
  for (const std::string& name : file->names())
    check<CheckpointError>(known.count(name) > 0,
                           one_line(text(file->keys().path(), ": `", name,
                                         "`: no tensor that this decoder has as ", architecture)));
  return tensors;
}

bool begins_with_one_of(std::string_view key, std::initializer_list<std::string_view> prefixes) {
  return std::any_of(prefixes.begin(), prefixes.end(),
                     [&](std::string_view prefix) { return key.starts_with(prefix); });
}

// Names, licences, where it comes from and how it was quantised.
bool is_without_effect(const std::string& key) {
  return begins_with_one_of(key, {"general.", "quantize.", "mradermacher."}) || is_tokenizer_key(key) ||
         key == "split.no" || key == "split.count" || key == "split.tensors.count";
}

void expect_all_known(const GgufKeys& keys, const Sizes& sizes, const std::set<std::string>& ignored) {
  for (const auto& [key, value] : keys.values())
    if (!sizes.known().count(key) && !ignored.count(key) && !is_without_effect(key))
      throw ConfigError(
          one_line(text(keys.path(), ": `", key,
                        "`: a key that is not understood; --ignore KEY takes it to have no effect")));
}

std::string architecture_of(const GgufKeys& keys) {
  const std::string architecture = keys.text("general.architecture");
  const std::vector<std::string> supported{"llama", "qwen2", "qwen3"};
  if (std::find(supported.begin(), supported.end(), architecture) == supported.end())
    keys.fail("general.architecture",
              text("one of ", join(supported), did_you_mean(architecture, supported)));
  if (keys.has("general.type") && keys.text("general.type") != "model") keys.fail("general.type", "model");
  if (keys.has("split.count")) keys.integer("split.count", 0, 1);
  return architecture;
}

}  // namespace

bool is_gguf_file(const std::string& path) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) return false;
  std::ifstream in(path, std::ios::binary);
  char magic[4] = {};
  return in.read(magic, sizeof magic) && std::string_view(magic, sizeof magic) == "GGUF";
}

ForeignModel open_gguf_model(const std::string& path, const std::set<std::string>& ignored) {
  const auto file = std::make_shared<const GgufFile>(path);
  const GgufKeys& keys = file->keys();
  const std::string architecture = architecture_of(keys);
  ForeignModel model{.path = path, .format = text("GGUF, ", architecture)};
  Sizes sizes(keys, architecture);
  read_sizes(sizes, model.config);
  read_rope(*file, sizes, model.config.head_dim, model.config.rope);
  read_parts(*file, architecture, model.config);
  constexpr const char* kEmbedding = "token_embd.weight";
  check<CheckpointError>(file->contains(kEmbedding) && file->shape(kEmbedding).size() == 2, one_line(path),
                         ": `", kEmbedding, "`: is missing, or no matrix");
  model.config.vocab_size = file->shape(kEmbedding)[0];
  sizes.expect("vocab_size", model.config.vocab_size);
  expect_all_known(keys, sizes, ignored);
  model.tensors = under_our_names(file, model.config, architecture);
  model.tokenizer = gguf_tokenizer(keys, model.config.vocab_size, ignored);
  return model;
}

}  // namespace longreach
