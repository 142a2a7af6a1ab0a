// Adapters through the program: trained beside a frozen model, resumed, evaluated, merged, exported for PEFT,
// refused.
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "checkpoints/safetensors.h"
#include "tests/support/program.h"
#include "tests/support/tiny_run.h"

namespace longreach::test {
namespace {

namespace fs = std::filesystem;
using Words = std::vector<std::string>;

std::string write_config(const TemporaryFolder& folder, const std::string& name, const std::string& more) {
  return folder.write(name + ".toml",
                      "[job]\ndump_folder = \"" + folder.path(name) + "\"\n" + more +
                          "[model]\nhidden_size = 32\nnum_hidden_layers = 2\nnum_attention_heads = 4\n"
                          "num_key_value_heads = 2\nmax_position_embeddings = 256\n"
                          "[[model.attention]]\nkind = \"lightning\"\nlayers = \"0\"\n"
                          "[[model.attention]]\nkind = \"dense\"\nlayers = \"1\"\n"
                          "[data]\ntrain = [\"" +
                          folder.path("corpus") +
                          "\"]\ntokenizer = \"bytes\"\n"
                          "[training]\nseq_len = 96\nbatch_size = 2\ngradient_accumulation_steps = 2\nsteps "
                          "= 8\nthreads = 1\n"
                          "[optimizer]\nlr = 1e-2\nweight_decay = 0.0\n[lr_scheduler]\nwarmup_steps = 2\n"
                          "[validation]\nfinal = false\n[sample]\ntokens = 0\n[metrics]\nplot = false\n");
}

const char* const kAdapter =
    "[adapter]\ntype = \"lora\"\nr = 4\nlora_alpha = 8\nlora_dropout = 0.1\n"
    "target_modules = [\"q_proj\", \"v_proj\", \"qkvu_proj\", \"down_proj\"]\n"
    "modules_to_save = [\"embed\", \"norm\"]\n";

std::string newest_model(const TemporaryFolder& folder, const std::string& run) {
  std::string newest;
  for (const auto& entry : fs::directory_iterator(folder.path(run)))
    newest = std::max(newest, entry.path().string());
  return newest + "/model-00000.safetensors";
}

class Adapter : public testing::Test {
 protected:
  Adapter() {
    folder.write("corpus/one.txt", generated_prose(40000, 1));
    base = write_config(folder, "base", "");
    tuned = write_config(folder, "tuned", finetune("base") + kAdapter);
  }
  std::string finetune(const std::string& from) const {
    return "task = \"finetune\"\n[checkpoint]\ninterval = 4\nkeep_latest_k = 0\ninitial_load_path = \"" +
           folder.path(from) + "\"\n";
  }
  ProgramResult train(const std::string& config, const Words& overrides = {}) const {
    Words words{"train", config};
    words.insert(words.end(), overrides.begin(), overrides.end());
    return run_program(words);
  }
  void train_both() const {
    for (const std::string& config : {base, tuned}) {
      const ProgramResult result = train(config);
      ASSERT_EQ(result.code, 0) << result.err;
    }
  }
  double perplexity(const std::string& run) const {
    const std::string json = folder.path("eval.json");
    const ProgramResult result = run_program({"eval", folder.path(run), "--rows", "4", "--json", json});
    EXPECT_EQ(result.code, 0) << result.err;
    return nlohmann::json::parse(read_text(json)).at("perplexity").get<double>();
  }
  void expect_refused(const ProgramResult& result, const std::string& part) const {
    EXPECT_EQ(result.code, 2) << result.out;
    EXPECT_NE(result.err.find(part), std::string::npos) << result.err;
  }
  TemporaryFolder folder;
  std::string base, tuned;
};

TEST_F(Adapter, TrainsWhatItNamesAndNothingElse) {
  ASSERT_EQ(train(base).code, 0);
  const ProgramResult result = train(tuned);
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_NE(result.out.find("holds none; 10 tensors, which change nothing at first"), std::string::npos)
      << result.out;
  EXPECT_NE(result.out.find("of them train"), std::string::npos) << result.out;
  const SafetensorsFile before(newest_model(folder, "base/checkpoint")),
      after(newest_model(folder, "tuned/checkpoint"));
  size_t adapters = 0, saved = 0;
  for (const auto& [name, entry] : after.entries()) {
    if (name.find(".lora_") != std::string::npos) {
      ++adapters;
      EXPECT_GT(after.tensor(name).abs().max().item<double>(), 0.0) << name;
      continue;
    }
    ASSERT_TRUE(before.contains(name)) << name;
    const bool trains = name.find("embed") != std::string::npos || name.find("norm") != std::string::npos;
    saved += trains;
    EXPECT_NE(after.tensor(name).equal(before.tensor(name)), trains) << name;
  }
  EXPECT_EQ(adapters, 10u);
  EXPECT_EQ(after.entries().size(), before.entries().size() + adapters);
  // Two moments and a count for each parameter that trains.
  const std::string optimizer =
      fs::path(newest_model(folder, "tuned/checkpoint")).parent_path() / "optimizer-00000.safetensors";
  EXPECT_EQ(SafetensorsFile(optimizer).entries().size(), 3 * (adapters + saved));
}

TEST_F(Adapter, ResumesBitForBitAndUnderActivationCheckpointing) {
  train_both();
  for (const Words& more :
       {Words{"--job.dump_folder", folder.path("stopped"), "--training.stop_at", "5"},
        Words{"--job.dump_folder", folder.path("stopped")},
        Words{"--job.dump_folder", folder.path("recomputed"), "--activation_checkpoint.mode", "full"}}) {
    const ProgramResult result = train(tuned, more);
    ASSERT_EQ(result.code, 0) << result.err;
  }
  const std::string whole = newest_model(folder, "tuned/checkpoint");
  for (const std::string run : {"stopped", "recomputed"}) {
    EXPECT_EQ(losses(folder.path(run)), losses(folder.path("tuned"))) << run;
    EXPECT_EQ(read_text(newest_model(folder, run + "/checkpoint")), read_text(whole)) << run;
  }
  const ProgramResult other =
      train(tuned, {"--job.dump_folder", folder.path("undropped"), "--adapter.lora_dropout", "0.0"});
  ASSERT_EQ(other.code, 0) << other.err;
  EXPECT_NE(losses(folder.path("undropped")), losses(folder.path("tuned"))) << "dropout changes nothing";
}

TEST_F(Adapter, TrainsInBfloat16AndFromNothing) {
  ASSERT_EQ(train(base).code, 0);
  const ProgramResult result = train(tuned, {"--training.mixed_precision_param", "bfloat16"});
  ASSERT_EQ(result.code, 0) << result.err;
  const auto loss = losses(folder.path("tuned"));
  EXPECT_LT(loss.at(8), loss.at(1));
  const ProgramResult fresh = train(write_config(folder, "fresh", kAdapter));
  EXPECT_EQ(fresh.code, 0) << fresh.err;
}

TEST_F(Adapter, IsEvaluatedGeneratedWithAndMerged) {
  train_both();
  const double adapted = perplexity("tuned");
  EXPECT_GT(std::abs(adapted - perplexity("base")), 1e-3);
  const Words prompt{"--prompt", "the sea ", "--max-new-tokens", "30", "--temperature", "0"};
  const auto said = [&](const std::string& run) {
    Words words{"generate", folder.path(run)};
    words.insert(words.end(), prompt.begin(), prompt.end());
    const ProgramResult result = run_program(words);
    EXPECT_EQ(result.code, 0) << result.err;
    return result.out;
  };
  const Words exporting{"export", folder.path("tuned"), folder.path("merged"), "--format", "merged"};
  const ProgramResult exported = run_program(exporting);
  ASSERT_EQ(exported.code, 0) << exported.err;
  EXPECT_NEAR(perplexity("merged"), adapted, 1e-5 * adapted);
  EXPECT_EQ(said("merged"), said("tuned"));
  const SafetensorsFile merged(newest_model(folder, "merged")),
      plain(newest_model(folder, "base/checkpoint"));
  EXPECT_EQ(merged.names_in_file_order(), plain.names_in_file_order());
  expect_refused(run_program(exporting), "exists and is not empty");

  // A run without adapters goes on from it; from the unmerged one it does not.
  const ProgramResult whole = train(write_config(folder, "whole", finetune("merged")));
  EXPECT_EQ(whole.code, 0) << whole.err;
  expect_refused(
      train(write_config(folder, "none", finetune("tuned"))),
      "was made with adapter.type = \"lora\", this run has \"none\"; `longreach export --format merged`");
}

TEST_F(Adapter, TrainsBesideWeightsInBfloat16) {
  ASSERT_EQ(train(base).code, 0);
  const Words narrow{"--adapter.base_dtype", "bfloat16"};
  const auto with = [&](Words words) {
    words.insert(words.end(), narrow.begin(), narrow.end());
    return words;
  };
  for (const Words& more :
       {Words{}, Words{"--job.dump_folder", folder.path("stopped"), "--training.stop_at", "5"},
        Words{"--job.dump_folder", folder.path("stopped")}}) {
    const ProgramResult result = train(tuned, with(more));
    ASSERT_EQ(result.code, 0) << result.err;
    EXPECT_NE(result.out.find(" GiB resident at the peak"), std::string::npos) << result.out;
  }
  EXPECT_EQ(losses(folder.path("stopped")), losses(folder.path("tuned")));
  EXPECT_EQ(read_text(newest_model(folder, "stopped/checkpoint")),
            read_text(newest_model(folder, "tuned/checkpoint")));

  const SafetensorsFile before(newest_model(folder, "base/checkpoint")),
      after(newest_model(folder, "tuned/checkpoint"));
  for (const auto& [name, entry] : before.entries()) {
    const bool trains = name.find("embed") != std::string::npos || name.find("norm") != std::string::npos;
    EXPECT_EQ(after.entries().at(name).dtype, trains ? "F32" : "BF16") << name;
    if (!trains) EXPECT_TRUE(after.tensor(name).equal(before.tensor(name).to(at::kBFloat16))) << name;
  }

  const double adapted = perplexity("tuned");
  const ProgramResult merged =
      run_program({"export", folder.path("tuned"), folder.path("merged"), "--format", "merged"});
  ASSERT_EQ(merged.code, 0) << merged.err;
  EXPECT_NEAR(perplexity("merged"), adapted, 1e-5 * adapted)
      << "merged from the weights that were trained beside";

  const ProgramResult wide = train(tuned, {"--training.steps", "9"});
  EXPECT_EQ(wide.code, 0) << wide.err;
  EXPECT_NE(wide.out.find("adapter.base_dtype: \"bfloat16\" -> \"float32\""), std::string::npos) << wide.out;
  expect_refused(train(base, narrow), "adapter.base_dtype = \"bfloat16\" is for weights that do not train");
  expect_refused(train(tuned, {"--adapter.base_dtype", "float16"}), "adapter.base_dtype");
}

TEST_F(Adapter, IsExportedAtTheEndOfARun) {
  ASSERT_EQ(train(base).code, 0);
  const Words both{"--export.format", "['peft', 'merged']"};
  for (int start = 0; start < 2; ++start) {  // the second finds everything done
    const ProgramResult result = train(tuned, both);
    ASSERT_EQ(result.code, 0) << result.err;
  }
  const std::string exports = folder.path("tuned/export/step-00000008/");
  EXPECT_TRUE(fs::exists(exports + "peft/adapter_model.safetensors"));
  EXPECT_EQ(run_program({"eval", exports + "merged", "--rows", "2"}).code, 0);
  expect_refused(train(base, both), "export.format: `peft` needs adapter.type = \"lora\"");
  expect_refused(train(base, {"--export.format", "['gates']"}), "kind = \"seer\"");
  expect_refused(train(tuned, {"--export.format", "['pert']"}), "`pert` is none of gates, peft, merged");
}

TEST_F(Adapter, IsExportedUnderPeftsNames) {
  train_both();
  const ProgramResult exported =
      run_program({"export", folder.path("tuned"), folder.path("peft"), "--format", "peft"});
  ASSERT_EQ(exported.code, 0) << exported.err;
  const SafetensorsFile file(folder.path("peft/adapter_model.safetensors")),
      model(newest_model(folder, "tuned/checkpoint"));
  const std::string prefix = "base_model.model.";
  for (const char* name :
       {"model.layers.1.self_attn.q_proj.lora_A.weight", "model.layers.1.self_attn.v_proj.lora_B.weight",
        "model.layers.0.self_attn.qkvu_proj.lora_A.weight", "model.layers.0.mlp.down_proj.lora_B.weight",
        "model.embed_tokens.weight", "model.layers.0.input_layernorm.weight", "model.norm.weight"}) {
    ASSERT_TRUE(file.contains(prefix + name)) << name;
    EXPECT_TRUE(file.tensor(prefix + name).equal(model.tensor(name))) << name;
  }
  EXPECT_TRUE(file.tensor(prefix + "lm_head.weight").equal(model.tensor("model.embed_tokens.weight")))
      << "tied";
  const auto config = nlohmann::json::parse(read_text(folder.path("peft/adapter_config.json")));
  EXPECT_EQ(config.at("peft_type"), "LORA");
  EXPECT_EQ(config.at("r"), 4);
  EXPECT_EQ(config.at("lora_alpha"), 8);
  EXPECT_EQ(config.at("target_modules"), (Words{"q_proj", "v_proj", "qkvu_proj", "down_proj"}));
  EXPECT_EQ(config.at("modules_to_save"),
            (Words{"embed_tokens", "input_layernorm", "norm", "post_attention_layernorm", "lm_head"}));
  EXPECT_EQ(config.at("base_model_name_or_path"), folder.path("base"));
  expect_refused(run_program({"export", folder.path("tuned"), folder.path("peft"), "--format", "peft"}),
                 "exists and is not empty");
  for (const char* format : {"peft", "merged"})
    expect_refused(run_program({"export", folder.path("base"), folder.path("x"), "--format", format}),
                   "the model has no adapters");
  EXPECT_FALSE(fs::exists(folder.path("x")));
}

TEST_F(Adapter, OtherSettingsThanTheCheckpointsAreRefused) {
  train_both();
  const Words longer{"--training.steps", "9"};
  const auto refused = [&](const Words& more, const std::string& part) {
    Words words = longer;
    words.insert(words.end(), more.begin(), more.end());
    expect_refused(train(tuned, words), part);
  };
  refused({"--adapter.r", "5"}, "was made with adapter.r = 4, this run has 5");
  refused({"--adapter.lora_alpha", "4"}, "adapter.lora_alpha = 8, this run has 4");
  refused({"--adapter.type", "none"}, "adapter.type = \"lora\", this run has \"none\"");
  refused({"--adapter.target_modules", "[\"q_proj\"]"}, "adapter.target_modules = ");
  refused({"--adapter.modules_to_save", "[\"norm\"]"}, "adapter.modules_to_save = ");
  refused({"--adapter.target_modules", "[\"w_proj\"]"}, "no layer has `w_proj`; this model has ");
  refused({"--job.task", "distill"}, "adapter.type = \"lora\": job.task = \"distill\" trains no adapters");
  expect_refused(train(base, {"--training.steps", "9", "--adapter.type", "lora", "--adapter.target_modules",
                              "[\"q_proj\"]"}),
                 "adapter.type = \"none\", this run has \"lora\"");
  // The same settings go on, in the same folder or in another run; dropout may change, and so may the order
  // of names.
  EXPECT_EQ(train(tuned, {"--training.steps", "9", "--adapter.lora_dropout", "0.2",
                          "--adapter.modules_to_save", "[\"norm\", \"embed\"]"})
                .code,
            0);
  const ProgramResult again = train(write_config(folder, "again", finetune("tuned") + kAdapter));
  EXPECT_EQ(again.code, 0) << again.err;
}

}  // namespace
}  // namespace longreach::test
