// Learning from a teacher through the program: layers that are converted, resumed, on two ranks, and put
// back.
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "checkpoints/checkpoint_reader.h"
#include "tests/support/program.h"
#include "tests/support/tiny_run.h"

namespace longreach::test {
namespace {

namespace fs = std::filesystem;
using Words = std::vector<std::string>;

constexpr const char* kDense = "[[model.attention]]\nkind = \"dense\"\n";
constexpr const char* kConverted =
    "[[model.attention]]\nkind = \"sliding\"\nlayers = \"0-1\"\nwindow = 8\n"
    "[[model.attention]]\nkind = \"dense\"\nlayers = \"2\"\n";
constexpr const char* kPutBack =
    "[[model.attention]]\nkind = \"dense\"\nlayers = \"0,2\"\n"
    "[[model.attention]]\nkind = \"sliding\"\nlayers = \"1\"\nwindow = 8\n";

class LearningFromATeacher : public testing::Test {
 protected:
  LearningFromATeacher() {
    folder.write("corpus/one.txt", generated_prose(40000, 1));
    EXPECT_EQ(train(config("teacher", kDense, "")).code, 0);
  }
  std::string config(const std::string& name, const std::string& attention, const std::string& more) const {
    return folder.write(
        name + ".toml",
        "[job]\ndump_folder = \"" + folder.path(name) + "\"\n" + more +
            "[model]\nhidden_size = 32\nnum_hidden_layers = 3\nnum_attention_heads = 4\n"
            "num_key_value_heads = 2\nmax_position_embeddings = 256\n" +
            attention + "[data]\ntrain = [\"" + folder.path("corpus") +
            "\"]\ntokenizer = \"bytes\"\n[training]\nseq_len = 64\nbatch_size = 2\nsteps = 6\n"
            "threads = 1\n[optimizer]\nlr = 1e-2\nweight_decay = 0.0\n[lr_scheduler]\n"
            "warmup_steps = 2\n[validation]\nfinal = false\n[sample]\ntokens = 0\n"
            "[metrics]\nplot = false\n");
  }
  std::string student(const std::string& name, const std::string& attention, const std::string& base,
                      const std::string& weights) const {
    return config(
        name, attention,
        "task = \"distill\"\n[checkpoint]\ninterval = 3\nkeep_latest_k = 0\ninitial_load_path = \"" +
            folder.path(base) + "\"\n[distillation]\nteacher = \"" + folder.path("teacher") + "\"\n" +
            weights);
  }
  ProgramResult train(const std::string& config, const Words& overrides = {}) const {
    Words words{"train", config};
    words.insert(words.end(), overrides.begin(), overrides.end());
    return run_program(words);
  }
  // The newest checkpoint's, by name.
  std::map<std::string, at::Tensor> model(const std::string& run) const {
    std::string newest;
    for (const auto& entry : fs::directory_iterator(folder.path(run + "/checkpoint")))
      newest = std::max(newest, entry.path().string());
    const CheckpointReader checkpoint(newest);
    std::map<std::string, at::Tensor> tensors;
    for (const std::string& name : checkpoint.model().names())
      tensors[name] = checkpoint.model().tensor(name);
    return tensors;
  }
  TemporaryFolder folder;
};

TEST_F(LearningFromATeacher, ConvertedAttentionMovesAndNothingElse) {
  const std::string config = student("student", kConverted, "teacher", "attention_weight = 1.0\n");
  const ProgramResult result = train(config, {"--optimizer.lr", "3e-4", "--training.steps", "30"});
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_NE(result.out.find("converted  2 layers"), std::string::npos) << result.out;
  ASSERT_EQ(train(config, {"--job.dump_folder", folder.path("still"), "--optimizer.lr", "1e-9",
                           "--training.steps", "30"})
                .code,
            0);
  EXPECT_LT(losses(folder.path("student")).at(30), 0.95 * losses(folder.path("still")).at(30));
  const auto before = model("teacher"), after = model("student");
  for (const auto& [name, tensor] : before) {
    const bool converted =
        name.find("self_attn") != std::string::npos && name.find("layers.2.") == std::string::npos;
    EXPECT_EQ(at::equal(after.at(name), tensor), !converted) << name;
  }
}

TEST_F(LearningFromATeacher, ResumesBitForBitAndRanksAreMicroBatches) {
  const std::string config = student("student", kConverted, "teacher",
                                     "attention_weight = 1.0\nhidden_weight = 0.5\nlogits_weight = 1.0\n"
                                     "temperature = 2.0\ntrainable = \"all\"\n");
  const Words twice = {"--training.gradient_accumulation_steps", "2"};
  ASSERT_EQ(train(config, twice).code, 0);
  Words stopped = twice;
  stopped.insert(stopped.end(), {"--job.dump_folder", folder.path("stopped")});
  Words first = stopped;
  first.insert(first.end(), {"--training.stop_at", "4"});
  ASSERT_EQ(train(config, first).code, 0);
  const ProgramResult resumed = train(config, stopped);
  ASSERT_EQ(resumed.code, 0) << resumed.err;
  for (const char* stage : {"0", "3"}) {
    const ProgramResult ranks =
        run_program({"launch", "-n", "2", "train", config, "--job.dump_folder",
                     folder.path("ranks" + std::string(stage)), "--parallel.data_parallel_replicate_degree",
                     "1", "--parallel.data_parallel_shard_degree", "2", "--parallel.zero_stage", stage});
    ASSERT_EQ(ranks.code, 0) << ranks.err;
  }
  for (const char* run : {"stopped", "ranks0", "ranks3"}) {
    EXPECT_EQ(losses(folder.path(run)), losses(folder.path("student"))) << run;
    const auto whole = model("student"), other = model(run);
    for (const auto& [name, tensor] : whole)
      EXPECT_TRUE(at::equal(other.at(name), tensor)) << run << ": " << name;
  }
}

// Ranks that share rows: the teacher reads across them as the student does.
TEST_F(LearningFromATeacher, SharedRowsTeachTheSame) {
  const std::string config = student("student", kConverted, "teacher",
                                     "attention_weight = 1.0\nhidden_weight = 0.5\nlogits_weight = 1.0\n");
  ASSERT_EQ(train(config).code, 0);
  const ProgramResult shared =
      run_program({"launch", "-n", "2", "train", config, "--job.dump_folder", folder.path("shared"),
                   "--parallel.context_parallel_degree", "2"});
  ASSERT_EQ(shared.code, 0) << shared.err;
  const auto whole = losses(folder.path("student")), together = losses(folder.path("shared"));
  ASSERT_EQ(whole.size(), together.size());
  for (const auto& [step, loss] : whole) EXPECT_NEAR(together.at(step), loss, 2e-4 * loss) << step;
}

// A layer that stays as the teacher has it takes the teacher's attention, whatever the base made of it.
TEST_F(LearningFromATeacher, LayersThatArePutBackAreTheTeachers) {
  ASSERT_EQ(train(student("first", kConverted, "teacher", "attention_weight = 1.0\n")).code, 0);
  const ProgramResult second = train(student("second", kPutBack, "first", "logits_weight = 1.0\n"));
  ASSERT_EQ(second.code, 0) << second.err;
  EXPECT_NE(second.out.find("1 layers take the teacher's attention"), std::string::npos) << second.out;
  const auto teacher = model("teacher"), first = model("first"), after = model("second");
  const auto same = [&](const std::map<std::string, at::Tensor>& other, int layer) {
    const std::string name = "model.layers." + std::to_string(layer) + ".self_attn.q_proj.weight";
    return at::equal(after.at(name), other.at(name));
  };
  EXPECT_TRUE(same(teacher, 0));
  EXPECT_FALSE(same(first, 0));
  EXPECT_FALSE(same(teacher, 1));
  EXPECT_FALSE(same(first, 1));
  EXPECT_TRUE(same(teacher, 2));
}

// One layer at a time: the teacher's own likelihood first, then what each converted layer makes of it.
TEST_F(LearningFromATeacher, ConvertedLayersAreJudgedOneByOne) {
  ASSERT_EQ(train(student("student", kConverted, "teacher", "attention_weight = 1.0\n")).code, 0);
  const Words layers = {"eval", folder.path("student"), "--tasks", "layers", "--rows", "3"};
  Words words = layers;
  words.insert(words.end(), {"--teacher", folder.path("teacher"), "--json", folder.path("layers.json")});
  const ProgramResult judged = run_program(words);
  ASSERT_EQ(judged.code, 0) << judged.err;
  const ProgramResult alone =
      run_program({"eval", folder.path("teacher"), "--rows", "3", "--json", folder.path("teacher.json")});
  ASSERT_EQ(alone.code, 0) << alone.err;
  const auto json = nlohmann::json::parse(read_text(folder.path("layers.json"))),
             whole = nlohmann::json::parse(read_text(folder.path("teacher.json")));
  ASSERT_EQ(json["layers"].size(), 3u);
  EXPECT_EQ(json["layers"][0]["nll"], whole["nll"]);
  EXPECT_EQ(json["layers"][1]["layer"], 0);
  EXPECT_EQ(json["layers"][2]["kind"], "sliding");
  const bool first_is_worse = json["layers"][1]["nll"] > json["layers"][2]["nll"];
  EXPECT_EQ(json["stay_first"], nlohmann::json(first_is_worse ? std::vector{0, 1} : std::vector{1, 0}));
  EXPECT_NE(judged.out.find(first_is_worse ? "stay first: 0,1" : "stay first: 1,0"), std::string::npos)
      << judged.out;
  EXPECT_NE(run_program(layers).err.find("--teacher: is missing"), std::string::npos);
  words[1] = folder.path("teacher");
  EXPECT_NE(run_program(words).err.find("every layer attends as the teacher's does"), std::string::npos);
}

TEST_F(LearningFromATeacher, WhatCannotBeTaughtIsRefusedByItsKey) {
  const auto refusal = [&](const std::string& config, const Words& overrides = {}) {
    const ProgramResult result = train(config, overrides);
    EXPECT_EQ(result.code, 2) << result.out;
    EXPECT_FALSE(fs::exists(folder.path("refused"))) << result.err;
    return result.err;
  };
  const std::string config = student("refused", kConverted, "teacher", "attention_weight = 1.0\n");
  const auto expect = [&](const std::string& message, const std::string& part) {
    EXPECT_NE(message.find(part), std::string::npos) << message;
  };
  expect(refusal(config, {"--distillation.attention_weight", "0"}),
         "attention_weight, hidden_weight or logits_weight");
  expect(refusal(config, {"--distillation.teacher", folder.path("nowhere")}),
         "distillation.teacher: " + folder.path("nowhere") + ": no such folder");
  expect(refusal(config, {"--job.task", "finetune"}), "distillation.teacher needs job.task");
  expect(refusal(config, {"--distillation.trainable", "all"}), "distillation.trainable");
  expect(refusal(config, {"--training.seq_len", "512", "--model.max_position_embeddings", "512"}),
         "max_position_embeddings = 256");
  const std::string deep = this->config("deep", kDense, "");
  ASSERT_EQ(train(deep, {"--model.num_hidden_layers", "2"}).code, 0);
  expect(refusal(config, {"--distillation.teacher", folder.path("deep")}), "num_hidden_layers = 2");
}

}  // namespace
}  // namespace longreach::test
