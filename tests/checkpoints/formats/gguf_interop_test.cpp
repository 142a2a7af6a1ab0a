// What we write as GGUF is read by the package gguf, tensor by tensor, and run by transformers.
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <c10/core/GradMode.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "checkpoints/formats/gguf/gguf_export.h"
#include "checkpoints/formats/gguf/gguf_file.h"
#include "checkpoints/safetensors.h"
#include "models/transformer.h"
#include "tests/support/files.h"
#include "tests/support/interop.h"
#include "tests/support/small_model.h"

namespace longreach::test {
namespace {

using GgufInterop = Interop;

constexpr int64_t kVocabulary = 640;

std::string text_file(const std::string& path) {
  std::ostringstream contents;
  contents << std::ifstream(path, std::ios::binary).rdbuf();
  return contents.str();
}

// Tokens of the tests that GGUF has words for.
std::map<std::string, std::string> tokenizer() {
  auto root = nlohmann::json::parse(
      text_file(std::string(LONGREACH_SOURCE_DIR) + "/tests/data/files/bpe_smollm.json"));
  auto kept = nlohmann::json::array();
  for (const auto& token : root["added_tokens"])
    if (token["special"] && !token["lstrip"] && !token["rstrip"]) kept.push_back(token);
  root["added_tokens"] = kept;
  return {{"tokenizer.json", root.dump()},
          {"tokenizer_config.json", R"({"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"})"}};
}

NamedTensors tensors_of(const Transformer& model) {
  NamedTensors all;
  for (const auto& item : model.named_parameters()) all.emplace_back(item.key(), item.value().detach());
  return all;
}

TEST_F(GgufInterop, ThePackageReadsTensorsAndTokenizer) {
  ModelConfig config = small_model();
  config.resolve(kVocabulary);
  const Transformer model(config, 3);
  const TemporaryFolder folder;
  folder.write("read.py",
               "import sys, numpy\n"
               "from gguf import GGUFReader, dequantize\n"
               "from safetensors.numpy import save_file\n"
               "file = GGUFReader(sys.argv[1])\n"
               "assert file.fields['tokenizer.ggml.pre'].contents() == 'smollm'\n"
               "assert len(file.fields['tokenizer.ggml.tokens'].contents()) == 640\n"
               "assert file.alignment == 32\n"
               "save_file({t.name: numpy.ascontiguousarray(dequantize(t.data, t.tensor_type)) for t in "
               "file.tensors},\n"
               "          sys.argv[2])\n");
  for (const char* type : {"F32", "F16", "Q8_0"}) {
    const std::string path = folder.path(std::string(type) + ".gguf"), out = path + ".safetensors";
    write_gguf(path, config, tensors_of(model), tokenizer(), {.type = type});
    const ProgramResult result = run_command({interop_python(), folder.path("read.py"), path, out});
    ASSERT_EQ(result.code, 0) << result.err;
    const SafetensorsFile theirs(out);
    const GgufFile ours(path);
    ASSERT_EQ(theirs.entries().size(), ours.names().size());
    for (const std::string& name : ours.names())
      EXPECT_TRUE(at::equal(theirs.tensor(name), ours.tensor(name))) << type << " " << name;
  }
}

TEST_F(GgufInterop, TransformersComputesTheSameLogits) {
  const TemporaryFolder folder;
  folder.write("run.py",
               "import os, sys, torch\n"
               "from safetensors.torch import save_file\n"
               "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
               "folder, name = os.path.split(sys.argv[1])\n"
               "model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)\n"
               "with torch.no_grad():\n"
               "    save_file({'logits': model(torch.arange(3, 35)[None]).logits}, sys.argv[2])\n");
  const auto expect_same = [&](const char* name, const auto& change) {
    ModelConfig config = small_model();
    config.tie_word_embeddings = false;
    change(config);
    config.resolve(kVocabulary);
    Transformer model(config, 3);
    const std::string path = folder.path(std::string(name) + ".gguf"), out = path + ".safetensors";
    write_gguf(path, config, tensors_of(model), tokenizer(), {.type = "F32"});
    const ProgramResult result = run_command({interop_python(), folder.path("run.py"), path, out});
    ASSERT_EQ(result.code, 0) << result.err;
    const c10::NoGradGuard no_grad;
    const at::Tensor ours = model.logits(at::arange(3, 35, at::kLong).unsqueeze(0), whole_rows(1, 32));
    const at::Tensor theirs = SafetensorsFile(out).tensor("logits");
    const double largest = ours.abs().max().item<double>();
    EXPECT_LE((ours - theirs).abs().max().item<double>(), 2e-5 * largest) << name;
  };
  expect_same("llama", [](ModelConfig&) {});
  expect_same("qwen2", [](ModelConfig& config) { config.attention_bias = true; });
  // transformers does not ask the file how large heads are: Qwen3's have 128.
  expect_same("qwen3", [](ModelConfig& config) {
    config.qk_norm = true;
    config.head_dim = 128;
  });
}

}  // namespace
}  // namespace longreach::test
