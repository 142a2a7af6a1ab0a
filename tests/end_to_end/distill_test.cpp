// Distilling gates through the program: from a dense checkpoint, resumed, exported, evaluated, used sparsely.
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>

#include "checkpoints/checkpoint_reader.h"
#include "checkpoints/formats/torch_file.h"
#include "tests/support/program.h"
#include "tests/support/tiny_run.h"

namespace longreach::test {
namespace {

namespace fs = std::filesystem;
using Words = std::vector<std::string>;

// The dense teacher of two layers, or its gated twin.
std::string write_config(const TemporaryFolder& folder, const std::string& name, const std::string& attention,
                         const std::string& more) {
  return folder.write(name + ".toml",
                      "[job]\ndump_folder = \"" + folder.path(name) + "\"\n" + more +
                          "[model]\nhidden_size = 32\nnum_hidden_layers = 2\nnum_attention_heads = 4\n"
                          "num_key_value_heads = 2\nmax_position_embeddings = 256\n"
                          "[[model.attention]]\n" +
                          attention + "[data]\ntrain = [\"" + folder.path("corpus") +
                          "\"]\ntokenizer = \"bytes\"\n"
                          "[training]\nseq_len = 96\nbatch_size = 2\nsteps = 8\nthreads = 1\n"
                          "[optimizer]\nlr = 1e-2\nweight_decay = 0.0\n[lr_scheduler]\nwarmup_steps = 2\n"
                          "[validation]\nfinal = false\n[sample]\ntokens = 0\n[metrics]\nplot = false\n");
}

const char* const kSeer =
    "kind = \"seer\"\nmode = \"distill\"\nblock_size = 16\ngate_hidden = 8\ntoken_budget = 32\n";

std::string newest_model(const TemporaryFolder& folder, const std::string& run) {
  std::string newest;
  for (const auto& entry : fs::directory_iterator(folder.path(run + "/checkpoint")))
    newest = std::max(newest, entry.path().string());
  return newest + "/model-00000.safetensors";
}

class Distill : public testing::Test {
 protected:
  Distill() {
    folder.write("corpus/one.txt", generated_prose(40000, 1));
    teacher = write_config(folder, "teacher", "kind = \"dense\"\n", "");
    student = write_config(
        folder, "student", kSeer,
        "task = \"distill\"\n[checkpoint]\ninterval = 4\nkeep_latest_k = 0\ninitial_load_path = \"" +
            folder.path("teacher") + "\"\n");
  }
  ProgramResult train(const std::string& config, const Words& overrides = {}) const {
    Words words{"train", config};
    words.insert(words.end(), overrides.begin(), overrides.end());
    return run_program(words);
  }
  TemporaryFolder folder;
  std::string teacher, student;
};

// The gates' loss is divided by what documents of all ranks have: neither a sum nor the largest alone.
TEST_F(Distill, RanksTeachWhatAccumulationTeaches) {
  std::string documents;
  for (int i = 0; i < 60; ++i)
    documents += "{\"text\": \"" +
                 std::string(i % 5 == 0 ? 90 : 3 + i % 17, static_cast<char>('a' + i % 26)) + "\"}\n";
  const Words run = {"--data.train", "[\"" + folder.write("uneven.jsonl", documents) + "\"]",
                     "--training.steps", "4"};
  ASSERT_EQ(train(teacher).code, 0);
  Words alone = run,
        ranks = {"launch", "-n", "2", "train", student, "--job.dump_folder", folder.path("ranks")};
  alone.insert(alone.end(), {"--training.gradient_accumulation_steps", "2"});
  ranks.insert(ranks.end(), run.begin(), run.end());
  ASSERT_EQ(train(student, alone).code, 0);
  const ProgramResult result = run_program(ranks);
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(losses(folder.path("ranks")), losses(folder.path("student")));
  const CheckpointReader shared(fs::path(newest_model(folder, "ranks")).parent_path().string()),
      whole(fs::path(newest_model(folder, "student")).parent_path().string());
  ASSERT_EQ(shared.model().names().size(), whole.model().names().size());
  for (const std::string& name : whole.model().names())
    EXPECT_TRUE(at::equal(shared.model().tensor(name), whole.model().tensor(name))) << name;
}

TEST_F(Distill, MovesTheGatesAndNothingElse) {
  ASSERT_EQ(train(teacher).code, 0);
  const ProgramResult result = train(student);
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_NE(result.out.find("holds none; 8 tensors start from random values"), std::string::npos)
      << result.out;
  const auto loss = losses(folder.path("student"));
  ASSERT_EQ(loss.size(), 8u);
  EXPECT_LT(loss.at(8), loss.at(1));

  const SafetensorsFile before(newest_model(folder, "teacher")), after(newest_model(folder, "student"));
  const SafetensorsFile first(folder.path("student/checkpoint/step-00000004/model-00000.safetensors"));
  int64_t gates = 0;
  for (const auto& [name, entry] : after.entries()) {
    if (name.find("attn_gate") != std::string::npos) {
      ++gates;
      EXPECT_FALSE(after.tensor(name).equal(first.tensor(name))) << name << " does not move";
      continue;
    }
    ASSERT_TRUE(before.contains(name)) << name;
    EXPECT_TRUE(after.tensor(name).equal(before.tensor(name))) << name << " moved";
  }
  EXPECT_EQ(gates, 8);
  EXPECT_EQ(after.entries().size(), before.entries().size() + 8);
}

TEST_F(Distill, ResumesBitForBitAndUnderActivationCheckpointing) {
  ASSERT_EQ(train(teacher).code, 0);
  ASSERT_EQ(train(student).code, 0);
  for (const Words& more :
       {Words{"--job.dump_folder", folder.path("stopped"), "--training.stop_at", "5"},
        Words{"--job.dump_folder", folder.path("stopped")},
        Words{"--job.dump_folder", folder.path("recomputed"), "--activation_checkpoint.mode", "full"}}) {
    const ProgramResult result = train(student, more);
    ASSERT_EQ(result.code, 0) << result.err;
  }
  for (const char* run : {"stopped", "recomputed"}) {
    EXPECT_EQ(losses(folder.path(run)), losses(folder.path("student"))) << run;
    EXPECT_EQ(read_text(newest_model(folder, run)), read_text(newest_model(folder, "student"))) << run;
  }
}

TEST_F(Distill, GatesAreExportedLoadedEvaluatedAndFineTuned) {
  ASSERT_EQ(train(teacher).code, 0);
  ASSERT_EQ(train(student).code, 0);
  const ProgramResult exported =
      run_program({"export", folder.path("student"), folder.path("gates"), "--format", "gates"});
  ASSERT_EQ(exported.code, 0) << exported.err;
  const TorchFile gates(folder.path("gates/attn_gate_weights.pth"));
  const SafetensorsFile model(newest_model(folder, "student"));
  EXPECT_EQ(gates.names().size(), 8u);
  for (const std::string& name : gates.names())
    EXPECT_TRUE(gates.tensor(name).equal(model.tensor(name))) << name;
  EXPECT_TRUE(gates.contains("model.layers.1.self_attn.attn_gate.attngate_linear_k.weight"));
  EXPECT_NE(read_text(folder.path("gates/config.json")).find("\"seerattn_q_head_pooling_type\": \"Qproj\""),
            std::string::npos);

  const ProgramResult table = run_program({"eval", folder.path("student"), "--tasks", "gates", "--rows", "2",
                                           "--density", "50", "--json", folder.path("table.json")});
  ASSERT_EQ(table.code, 0) << table.err;
  EXPECT_NE(table.out.find("oracle"), std::string::npos);
  EXPECT_NE(read_text(folder.path("table.json")).find("\"measured_density\""), std::string::npos);

  // Sparse fine-tuning starts from the dense checkpoint and the exported gates.
  const std::string sparse = std::string(kSeer).replace(std::string(kSeer).find("distill"), 7, "sparse");
  const std::string config =
      write_config(folder, "sparse", sparse,
                   "task = \"finetune\"\n[checkpoint]\ninitial_load_path = \"" + folder.path("teacher") +
                       "\"\n[distillation]\ngates = \"" + folder.path("gates") + "\"\n");
  const ProgramResult tuned = train(config);
  ASSERT_EQ(tuned.code, 0) << tuned.err;
  EXPECT_EQ(losses(folder.path("sparse")).size(), 8u);
  const SafetensorsFile start(newest_model(folder, "student")), end(newest_model(folder, "sparse"));
  for (const auto& [name, entry] : end.entries())
    EXPECT_FALSE(end.tensor(name).equal(start.tensor(name))) << name << " does not move";
  const ProgramResult said =
      run_program({"generate", folder.path("sparse"), "--prompt", "the sea ", "--max-new-tokens", "30"});
  EXPECT_EQ(said.code, 0) << said.err;
}

TEST_F(Distill, GatesOfAnotherModelAndMissingGatesAreRefused) {
  ASSERT_EQ(train(teacher).code, 0);
  ASSERT_EQ(train(student).code, 0);
  ASSERT_EQ(run_program({"export", folder.path("student"), folder.path("gates"), "--format", "gates"}).code,
            0);
  const std::string wide =
      std::string(kSeer).replace(std::string(kSeer).find("gate_hidden = 8"), 15, "gate_hidden = 6");
  const std::string base = "[checkpoint]\ninitial_load_path = \"" + folder.path("teacher") + "\"\n";
  const ProgramResult other = train(write_config(
      folder, "other", wide,
      "task = \"finetune\"\n" + base + "[distillation]\ngates = \"" + folder.path("gates") + "\"\n"));
  EXPECT_EQ(other.code, 2);
  EXPECT_NE(other.err.find("gates of another model"), std::string::npos) << other.err;
  const ProgramResult none = train(write_config(folder, "none", kSeer, "task = \"finetune\"\n" + base));
  EXPECT_EQ(none.code, 2);
  EXPECT_NE(none.err.find("it holds no model.layers.0.self_attn.attn_gate"), std::string::npos) << none.err;
  const ProgramResult nothing =
      train(write_config(folder, "nothing", "kind = \"dense\"\n", "task = \"distill\"\n" + base));
  EXPECT_EQ(nothing.code, 2);
  EXPECT_NE(nothing.err.find("no [[model.attention]] table"), std::string::npos) << nothing.err;
  const ProgramResult dense = run_program({"eval", folder.path("teacher"), "--tasks", "gates"});
  EXPECT_EQ(dense.code, 2);
  EXPECT_NE(dense.err.find("no layer of kind"), std::string::npos) << dense.err;
}

TEST_F(Distill, AnExportThatIsNotWholeIsMadeAnew) {
  ASSERT_EQ(train(teacher).code, 0);
  const Words exporting = {"--export.format", "[\"gates\"]"};
  ASSERT_EQ(train(student, exporting).code, 0);
  const std::string gates = folder.path("student/export/step-00000008/gates"),
                    file = gates + "/attn_gate_weights.pth";
  const std::string whole = read_text(file), settings = read_text(gates + "/config.json");
  ASSERT_GT(whole.size(), 1000u);
  const auto redone = [&](const std::function<void()>& damage, bool kept) {
    damage();
    const ProgramResult again = train(student, exporting);
    EXPECT_EQ(again.code, 0) << again.err;
    EXPECT_EQ(read_text(file), whole);
    EXPECT_EQ(read_text(gates + "/config.json"), settings);
    EXPECT_EQ(fs::exists(gates + ".incomplete"), kept);
    fs::remove_all(gates + ".incomplete");
  };
  redone([] {}, false);
  redone([&] { fs::remove_all(gates), fs::create_directory(gates); }, false);
  redone([&] { fs::remove(file); }, true);
  redone([&] { fs::remove(gates + "/config.json"); }, true);
  redone([&] { fs::resize_file(file, whole.size() / 2); }, true);
  for (const auto& entry : fs::directory_iterator(fs::path(gates).parent_path()))
    EXPECT_EQ(entry.path().filename(), "gates") << "something is left";
  const ProgramResult twice = run_program({"export", folder.path("student"), gates, "--format", "gates"});
  EXPECT_EQ(twice.code, 2) << "what stands there stays";
  EXPECT_NE(twice.err.find("not empty"), std::string::npos) << twice.err;
}

}  // namespace
}  // namespace longreach::test
