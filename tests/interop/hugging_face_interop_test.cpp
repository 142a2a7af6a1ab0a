// Models of every family that `longreach export --format hf` writes, in the hands of transformers.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <nlohmann/json.hpp>
#include <sstream>

#include "checkpoints/safetensors.h"
#include "core/temporary_folder.h"
#include "tests/support/interop.h"
#include "tests/support/program.h"
#include "tests/support/saved_model.h"
#include "tests/support/small_model.h"

namespace longreach {
namespace {

struct Case {
  std::string name, transformers_class;
  RunConfig config;
  std::string dtype = "float32";
};

NsaConfig small_nsa(const std::string& layout, const std::string& compress) {
  NsaConfig config;
  config.layout = layout;
  config.compress = compress;
  config.compress_block = 8;
  config.compress_stride = 4;
  config.block_size = 16;
  config.num_blocks = 2;
  config.latest_blocks = 1;
  config.window = 8;
  return config;
}

InfllmConfig small_infllm() {
  InfllmConfig config;
  config.kernel_size = 4;
  config.kernel_stride = 2;
  config.block_size = 16;
  config.num_blocks = 2;
  config.first_blocks = 0;
  config.window = 0;
  return config;
}

RunConfig small_config() {
  RunConfig config;
  config.model = test::small_model();
  config.model.max_position_embeddings = 128;
  config.model.tie_word_embeddings = false;
  return config;
}

constexpr const char* kScript = LONGREACH_SOURCE_DIR "/tests/interop/hugging_face.py";

// The small model, changed by `change`.
Case with(const std::string& name, const std::string& transformers_class,
          const std::function<void(RunConfig&)>& change, const std::string& dtype = "float32") {
  Case result{name, transformers_class + "ForCausalLM", small_config(), dtype};
  change(result.config);
  return result;
}

void minimax(RunConfig& config) {
  config.model.residual = {.form = "minimax",
                           .full_attn_alpha_factor = 1.5,
                           .linear_attn_beta_factor = 0.5,
                           .mlp_alpha_factor = 1.25};
  config.model.attention = {{.layers = "0", .config = LightningConfig{.form = "minimax"}},
                            {.layers = "1", .config = DenseConfig{}}};
}

RopeConfig longrope(int64_t original) {
  return {.rope_type = "longrope",
          .factor = 4.0,
          .original_max_position_embeddings = original,
          .short_factor = {1.0, 1.25, 1.5, 2.0},
          .long_factor = {1.0, 2.0, 4.0, 8.0}};
}

std::vector<Case> scalings() {
  return {
      with("linear", "Llama", [](RunConfig& c) { c.model.rope = {.rope_type = "linear", .factor = 4.0}; }),
      with("dynamic", "Llama",
           [](RunConfig& c) {
             c.model.rope = {.rope_type = "dynamic", .factor = 4.0, .original_max_position_embeddings = 32};
           }),
      with("yarn", "Llama",
           [](RunConfig& c) {
             c.model.rope = {.rope_type = "yarn", .factor = 4.0, .original_max_position_embeddings = 32};
           }),
      with("yarn_of_its_own", "Llama",
           [](RunConfig& c) {
             c.model.rope = {.rope_type = "yarn",
                             .factor = 3.5,
                             .beta_fast = 8.0,
                             .beta_slow = 2.0,
                             .attention_factor = 1.25,
                             .truncate = false};
           }),
      with("longrope", "Llama", [](RunConfig& c) { c.model.rope = longrope(32); }),
      with("longrope_short", "Llama",
           [](RunConfig& c) {
             c.model.rope = longrope(128);
             c.model.rope.attention_factor = 1.25;
           }),
      with("llama3", "Llama", [](RunConfig& c) {
        c.model.rope = {
            .theta = 500000.0, .rope_type = "llama3", .factor = 8.0, .original_max_position_embeddings = 32};
      })};
}

std::vector<Case> families() {
  return {
      with("llama", "Llama", [](RunConfig&) {}),
      with("llama_tied", "Llama", [](RunConfig& c) { c.model.tie_word_embeddings = true; }),
      with("llama_wide_heads", "Llama", [](RunConfig& c) { c.model.head_dim = 24; }),
      with("llama_biases", "Llama",
           [](RunConfig& c) {
             c.model.attention_bias = c.model.attention_output_bias = c.model.mlp_bias = true;
           }),
      with("mistral", "Mistral",
           [](RunConfig& c) { c.model.attention = {{.config = SlidingConfig{.window = 16}}}; }),
      with("qwen2", "Qwen2", [](RunConfig& c) { c.model.attention_bias = true; }),
      with("qwen2_window", "Qwen2",
           [](RunConfig& c) {
             c.model.attention_bias = true;
             c.model.attention = {{.layers = "0", .config = DenseConfig{}},
                                  {.layers = "1", .config = SlidingConfig{.window = 16}}};
           }),
      with("qwen3", "Qwen3",
           [](RunConfig& c) {
             c.model.qk_norm = true;
             c.model.head_dim = 16;
             c.model.rope.theta = 1e6;
           }),
      with("qwen3_window", "Qwen3",
           [](RunConfig& c) {
             c.model.qk_norm = c.model.attention_bias = c.model.attention_output_bias = true;
             c.model.attention = {{.layers = "1", .config = DenseConfig{}},
                                  {.layers = "0", .config = SlidingConfig{.window = 16}}};
           }),
      with("minimax", "MiniMax", minimax),
      with("minimax_wide_heads", "MiniMax",
           [](RunConfig& c) {
             minimax(c);
             c.model.num_hidden_layers = 3;
             c.model.head_dim = 24;
             c.model.tie_word_embeddings = true;
             c.model.attention = {{.layers = "0,2", .config = DenseConfig{}},
                                  {.layers = "1", .config = LightningConfig{.form = "minimax"}}};
             c.model.rope = {.rope_type = "yarn", .factor = 4.0, .original_max_position_embeddings = 32};
           }),
      with("minimax_bfloat16", "MiniMax", minimax, "bfloat16"),
      with("adapters", "Llama",
           [](RunConfig& c) {
             c.adapter.type = "lora";
             c.adapter.r = 4;
           }),
      with(
          "bfloat16", "Llama", [](RunConfig&) {}, "bfloat16"),
      with(
          "float16", "Llama", [](RunConfig&) {}, "float16"),
  };
}

// Models of no family, which bring their Python.
std::vector<Case> models_with_code() {
  const auto layers = [](RunConfig& config, const AttentionConfig& kind) {
    config.model.num_hidden_layers = 4;
    config.model.max_position_embeddings = 256;
    config.model.attention = {{.layers = "0-2", .config = kind}, {.layers = "3", .config = DenseConfig{}}};
  };
  return {
      with("nope", "Longreach",
           [](RunConfig& c) { c.model.attention = {{.config = DenseConfig{.rope = false}}}; }),
      with("sinks", "Longreach",
           [](RunConfig& c) { c.model.attention = {{.config = SlidingConfig{.window = 16, .sinks = 3}}}; }),
      with("transnormer", "Longreach",
           [](RunConfig& c) {
             c.model.norm = "srmsnorm";
             c.model.mlp = "sglu";
             c.model.embedding_scale = 5.5;
             c.model.attention = {{.config = LightningConfig{}}};
           }),
      with("minimax_norms", "Longreach",
           [](RunConfig& c) {
             minimax(c);
             c.model.qk_norm = true;
           }),
      with("hypenet", "Longreach",
           [](RunConfig& c) {
             c.model.num_hidden_layers = 3;
             c.model.attention = {
                 {.layers = "0", .config = DenseConfig{.rope = false, .output_gate = true}},
                 {.layers = "1", .config = LightningConfig{.form = "hypenet"}},
                 {.layers = "2",
                  .config = LightningConfig{.form = "hypenet", .scale = "1/d", .rope = false}}};
           }),
      with("paper_decay", "Longreach",
           [](RunConfig& c) {
             c.model.attention = {{.config = LightningConfig{.decay = "paper", .lrpe = "on"}}};
           }),
      with("yarn_hybrid", "Longreach",
           [](RunConfig& c) {
             c.model.rope = {.rope_type = "yarn", .factor = 4.0, .original_max_position_embeddings = 32};
             c.model.qk_norm = true;
             c.model.attention = {{.layers = "0", .config = LightningConfig{}},
                                  {.layers = "1", .config = SlidingConfig{.window = 16, .sinks = 2}}};
           }),
      with("s2", "Longreach",
           [&](RunConfig& c) { layers(c, S2Config{.block_size = 16, .local_blocks = 1, .vert_stride = 2}); }),
      with("biformer", "Longreach",
           [&](RunConfig& c) { layers(c, BiformerConfig{.region = 16, .topk = 2}); }),
      with("nsa", "Longreach", [&](RunConfig& c) { layers(c, small_nsa("fla", "mean")); }),
      with("nsa_mlp", "Longreach", [&](RunConfig& c) { layers(c, small_nsa("xunhaolai", "mlp")); }),
      with("nsa_linear", "Longreach", [&](RunConfig& c) { layers(c, small_nsa("fla", "linear")); }),
      with("nsa_lucidrains", "Longreach",
           [&](RunConfig& c) { layers(c, small_nsa("lucidrains", "weighted")); }),
      with("infllm", "Longreach", [&](RunConfig& c) { layers(c, small_infllm()); }),
      with("infllm_gated", "Longreach",
           [&](RunConfig& c) {
             InfllmConfig kind = small_infllm();
             kind.output_gate = true;
             kind.dense_len = 40;
             layers(c, kind);
           }),
      with("seer", "Longreach",
           [&](RunConfig& c) {
             layers(c, SeerConfig{.block_size = 16, .gate_hidden = 8, .selection = "top_k", .top_k = 1});
           }),
      with("seer_threshold", "Longreach",
           [&](RunConfig& c) {
             layers(c, SeerConfig{.block_size = 16,
                                  .gate_hidden = 8,
                                  .q_pooling = "Qorig",
                                  .selection = "threshold",
                                  .threshold = 0.4,
                                  .first_blocks = 1});
           }),
  };
}

at::Tensor greedy(Transformer& model, const at::Tensor& prompt, int64_t new_tokens) {
  ModelDecodeState state = model.start_decoding(prompt.size(0), prompt.size(1) + new_tokens);
  std::vector<at::Tensor> tokens;
  at::Tensor next = prompt;
  for (int64_t i = 0; i < new_tokens; ++i) {
    next = model.decode(next, state).argmax(-1, true);
    tokens.push_back(next);
  }
  return at::cat(tokens, 1);
}

// What our model gives, for tests/interop/hugging_face.py.
void write_expected(Transformer& model, const std::string& folder) {
  const at::NoGradGuard no_grad;
  const at::Tensor tokens = (at::arange(2 * 64, at::kLong) * 37).remainder(257).view({2, 64});
  // Of dynamic rotary embeddings the keys that are kept turn beyond the first 32 tokens.
  const bool dynamic = model.config().rope.rope_type == "dynamic";
  const at::Tensor prompt = tokens.narrow(1, 0, dynamic ? 12 : 40).contiguous();
  write_safetensors(folder + "/expected.safetensors", {{"input_ids", tokens},
                                                       {"logits", model.logits(tokens, whole_rows(2, 64))},
                                                       {"prompt", prompt},
                                                       {"greedy_ids", greedy(model, prompt, 16)}});
}

using HuggingFaceInterop = test::Interop;

// Exports a model to `own`/model beside what ours gives, for a script that `command` calls.
void export_case(const Case& one, const std::string& own, std::vector<std::string>& command,
                 const std::string& family = "auto") {
  const std::string checkpoint = test::save_untrained(one.config, own + "/run");
  const test::ProgramResult exported = test::run_program(
      {"export", checkpoint, own + "/model", "--format", "hf", "--dtype", one.dtype, "--family", family});
  ASSERT_EQ(exported.code, 0) << one.name << ": " << exported.err;
  write_expected(*load_saved_model(one.dtype == "float32" ? checkpoint : own + "/model").model, own);
  command.push_back(own);
}

// Exports each model under `folder`, and compares what the script that `command` calls says of it, a line of
// JSON each.
std::vector<nlohmann::json> computed_alike(const std::vector<Case>& cases, const TemporaryFolder& folder,
                                           std::vector<std::string> command,
                                           const std::string& family = "auto") {
  for (const Case& one : cases) export_case(one, folder.path(one.name), command, family);
  const test::ProgramResult result = test::run_command(command);
  EXPECT_EQ(result.code, 0) << result.err;
  std::istringstream lines(result.out);
  std::vector<nlohmann::json> all;
  for (const Case& one : cases) {
    std::string line;
    if (!std::getline(lines, line)) {
      ADD_FAILURE() << one.name << ": nothing is said of it";
      return all;
    }
    const nlohmann::json& found = all.emplace_back(nlohmann::json::parse(line));
    EXPECT_EQ(found.at("class"), one.transformers_class) << one.name;
    for (const char* key : {"missing", "unexpected"})
      EXPECT_TRUE(found.at(key).empty()) << one.name << ": " << line;
    EXPECT_LE(found.at("error").get<double>(), 2e-5 * found.at("largest").get<double>()) << one.name;
  }
  return all;
}

// By transformers, which generates too.
void expect_computed_alike(const std::vector<Case>& cases) {
  const TemporaryFolder folder;
  const auto found = computed_alike(cases, folder, {test::interop_python(), kScript, "check"});
  ASSERT_EQ(found.size(), cases.size());
  for (size_t i = 0; i < cases.size(); ++i) {
    const std::string& name = cases[i].name;
    EXPECT_TRUE(found[i].at("mismatched").empty()) << name << ": " << found[i];
    const at::Tensor own = SafetensorsFile(folder.path(name + "/expected.safetensors")).tensor("greedy_ids");
    std::vector<std::vector<int64_t>> ids;
    for (int64_t row = 0; row < own.size(0); ++row)
      ids.emplace_back(own[row].data_ptr<int64_t>(), own[row].data_ptr<int64_t>() + own.size(1));
    EXPECT_EQ(found[i].at("greedy_ids"), nlohmann::json(ids)) << name;
  }
}

TEST_F(HuggingFaceInterop, TransformersComputesWhatWeDo) { expect_computed_alike(families()); }

TEST_F(HuggingFaceInterop, TransformersTurnsAsWeDo) { expect_computed_alike(scalings()); }

TEST_F(HuggingFaceInterop, OurPythonComputesWhatWeDo) { expect_computed_alike(models_with_code()); }

// No program that has MiniCPM-SALA runs on a CPU: its equations in float64 read the folder.
TEST_F(HuggingFaceInterop, TheEquationsOfMinicpmSalaComputeWhatWeDo) {
  const auto layers = [](RunConfig& config, const AttentionConfig& softmax,
                         const LightningConfig& lightning) {
    config.model.num_hidden_layers = 4;
    config.model.attention = {{.layers = "0,2", .config = softmax}, {.layers = "1,3", .config = lightning}};
  };
  InfllmConfig chosen = small_infllm();
  chosen.rope = false;
  chosen.output_gate = true;
  const std::vector<Case> cases{
      with("sala", "MiniCPMSALA",
           [&](RunConfig& c) {
             layers(c, DenseConfig{.rope = false, .output_gate = true}, {.form = "hypenet"});
             c.model.rope.theta = 500.0;
           }),
      with("sala_plain", "MiniCPMSALA",
           [&](RunConfig& c) {
             layers(c, DenseConfig{.rope = false}, {.form = "hypenet", .scale = "1/d", .rope = false});
             c.model.tie_word_embeddings = true;
             c.model.num_attention_heads = 6;
             c.model.head_dim = 8;
             c.model.embedding_scale = 3.0;
           }),
      with("sala_sparse", "MiniCPMSALA", [&](RunConfig& c) { layers(c, chosen, {.form = "hypenet"}); }),
      with("sala_sparse_from_40_tokens", "MiniCPMSALA",
           [&](RunConfig& c) {
             InfllmConfig late = chosen;
             late.dense_len = 40;
             late.first_blocks = 1;
             late.num_blocks = 3;
             layers(c, late, {.form = "hypenet"});
           }),
      with(
          "sala_bfloat16", "MiniCPMSALA",
          [&](RunConfig& c) {
            layers(c, DenseConfig{.rope = false, .output_gate = true}, {.form = "hypenet"});
          },
          "bfloat16"),
  };
  const TemporaryFolder folder;
  const auto found = computed_alike(
      cases, folder, {test::interop_python(), LONGREACH_SOURCE_DIR "/tests/interop/minicpm_sala.py"},
      "minicpm_sala");
  ASSERT_EQ(found.size(), cases.size());
  for (const nlohmann::json& one : found) EXPECT_EQ(one.at("model_type"), "minicpm_sala");
}

// Both by way of an import, and from the folder itself.
TEST_F(HuggingFaceInterop, WeComputeWhatTransformersDoes) {
  const TemporaryFolder folder;
  const test::ProgramResult made =
      test::run_command({test::interop_python(), kScript, "make", folder.path()});
  ASSERT_EQ(made.code, 0) << made.err;
  std::istringstream names(made.out);
  int count = 0;
  for (std::string name; std::getline(names, name); ++count) {
    const std::string theirs = folder.path(name), ours = folder.path("imported_" + name);
    const test::ProgramResult imported = test::run_program({"import", theirs, ours});
    ASSERT_EQ(imported.code, 0) << name << ": " << imported.err;
    for (const std::string& model : {theirs, ours}) {
      const test::ProgramResult result =
          test::run_program({"verify", "--checkpoint", model, theirs + ".safetensors"});
      EXPECT_EQ(result.code, 0) << name << ": " << result.out << result.err;
      EXPECT_THAT(result.out, testing::HasSubstr("2 tensors, 0 failed")) << name;
    }
  }
  EXPECT_GE(count, 14);
}

}  // namespace
}  // namespace longreach
