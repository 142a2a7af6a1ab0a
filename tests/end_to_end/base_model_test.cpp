// A new run from a checkpoint: what it takes over, what it refuses, what it says.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/files.h"
#include "tests/support/program.h"
#include "tests/support/tiny_run.h"

namespace longreach::test {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using Words = std::vector<std::string>;

class BaseModel : public testing::Test {
 protected:
  void SetUp() override {
    const ProgramResult base =
        run({"train", config_, "--training.stop_at", "2", "--model.rope_theta", "50000",
             "--model.rms_norm_eps", "1e-6", "--model.intermediate_size", "48"});
    ASSERT_EQ(base.code, 0) << base.err;
    // Nothing about the model but what a test adds.
    tune_ =
        folder_.write("tune.toml", "[job]\ntask = \"finetune\"\ndump_folder = \"" + folder_.path("tuned") +
                                       "\"\n[data]\ntrain = [\"" + folder_.path("corpus") +
                                       "\"]\n[training]\nseq_len = 64\nsteps = 2\nthreads = 1\n"
                                       "[checkpoint]\ninitial_load_path = \"" +
                                       folder_.path("run") +
                                       "\"\n[validation]\nfinal = false\n[sample]\ntokens = 0\n"
                                       "[lr_scheduler]\nwarmup_steps = 1\n"
                                       "[metrics]\nplot = false\n");
  }
  static ProgramResult run(const Words& words) { return run_program(words); }
  ProgramResult tune(Words overrides = {}) {
    overrides.insert(overrides.begin(), {"train", tune_});
    return run(overrides);
  }
  TemporaryFolder folder_;
  const std::string config_ = write_tiny_run(folder_);
  std::string tune_;
};

TEST_F(BaseModel, GivesItsModelToKeysThatAreNotGiven) {
  const ProgramResult first = tune({"--training.stop_at", "1"});
  ASSERT_EQ(first.code, 0) << first.err;
  EXPECT_THAT(first.out, HasSubstr("lightning sliding dense"));
  EXPECT_THAT(first.out,
              HasSubstr("loaded     " + folder_.path("run/checkpoint/step-00000002") + ", step 2: "));
  EXPECT_THAT(first.out, Not(HasSubstr("changed")));
  EXPECT_THAT(first.err, Not(HasSubstr("warning")));
  const std::string config = read_text(folder_.path("tuned/config.toml"));
  for (const char* line :
       {"rope_theta = 50000.0", "rms_norm_eps = 1e-06", "intermediate_size = 48", "window = 16"})
    EXPECT_THAT(config, HasSubstr(line));
  // The run that has begun needs the base no more.
  std::filesystem::remove_all(folder_.path("run"));
  const ProgramResult second = tune();
  EXPECT_EQ(second.code, 0) << second.err;
  EXPECT_THAT(second.out, HasSubstr("after step 1"));
}

TEST_F(BaseModel, IsRefusedAsAnotherFunctionOfTheSameTensors) {
  const auto refused = [&](const Words& overrides, const std::string& what) {
    const ProgramResult result = tune(overrides);
    EXPECT_EQ(result.code, 2) << what;
    EXPECT_THAT(result.err, HasSubstr("checkpoint.initial_load_path: "));
    EXPECT_THAT(result.err, HasSubstr(what));
  };
  refused({"--model.num_attention_heads", "2", "--model.num_key_value_heads", "1", "--model.head_dim", "16"},
          "model.num_attention_heads = 4 there, 2 here");
  refused({"--model.rms_norm_eps", "1e-5"}, "model.rms_norm_eps = 1e-06 there, 1e-05 here");
  refused({"--model.mlp", "sglu"}, "model.mlp = \"swiglu\" there, \"sglu\" here");
}

TEST_F(BaseModel, TakesPositionsAndAttentionAsGiven) {
  const std::string tables =
      read_text(tune_) +
      "[model]\nrope_theta = 1e6\nmax_position_embeddings = 512\n"
      "[model.rope_scaling]\nrope_type = \"linear\"\nfactor = 2.0\n"
      "[[model.attention]]\nkind = \"lightning\"\nlayers = \"0\"\n"
      "[[model.attention]]\nkind = \"sliding\"\nlayers = \"1-2\"\nwindow = 8\nsinks = 2\n";
  folder_.write("tune.toml", tables);
  const ProgramResult result = tune();
  ASSERT_EQ(result.code, 0) << result.err;
  for (const char* line :
       {"model.rope_theta: 50000.0 -> 1e+06", "model.max_position_embeddings: 256 -> 512",
        "model.rope_scaling.rope_type: \"default\" -> \"linear\"",
        "model.attention.window (layer 1): 16 -> 8", "model.attention.kind (layer 2): dense -> sliding"})
    EXPECT_THAT(result.out, HasSubstr(std::string("changed    ") + line + " (of the base model)\n"));
  EXPECT_THAT(read_text(folder_.path("tuned/config.toml")), HasSubstr("rope_theta = 1e+06"));
}

TEST_F(BaseModel, MayNameLayersThatOnlyItHas) {
  ASSERT_EQ(run({"train", config_, "--training.steps", "1", "--model.num_hidden_layers", "6",
                 "--job.dump_folder", folder_.path("deep"), "--model.attention.2.layers", "2-5"})
                .code,
            0);
  folder_.write("tune.toml", read_text(tune_) +
                                 "[[model.attention]]\nkind = \"dense\"\nlayers = \"1-5\"\n"
                                 "[[model.attention]]\nkind = \"lightning\"\nlayers = \"0\"\n");
  const ProgramResult result = tune({"--checkpoint.initial_load_path", folder_.path("deep")});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("model.attention.kind (layer 1): sliding -> dense"));
}

TEST_F(BaseModel, WarnsOfAnotherTokenizer) {
  const std::string tokenizer = LONGREACH_SOURCE_DIR "/tests/data/files/bpe_gpt2.json";
  ASSERT_EQ(run({"train", config_, "--training.steps", "1", "--model.vocab_size", "4096", "--job.dump_folder",
                 folder_.path("wide")})
                .code,
            0);
  const ProgramResult result =
      tune({"--checkpoint.initial_load_path", folder_.path("wide"), "--data.tokenizer", tokenizer});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_THAT(result.err, HasSubstr("was trained with another tokenizer"));
}

}  // namespace
}  // namespace longreach::test
