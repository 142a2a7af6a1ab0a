// What a user can get wrong: one clear line that names the place, exit code 2, nothing written.
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/support/program.h"
#include "tests/support/tiny_run.h"

namespace longreach::test {
namespace {

using Words = std::vector<std::string>;

void expect_user_error(const Words& words, const std::string& named) {
  const ProgramResult result = run_program(words);
  EXPECT_EQ(result.code, 2) << result.out << result.err;
  EXPECT_NE(result.err.find(named), std::string::npos) << "expected " << named << " in: " << result.err;
  const auto lines = std::count(result.err.begin(), result.err.end(), '\n');
  EXPECT_EQ(lines, 1) << result.err;
  EXPECT_LE(result.err.size(), 1001u);
  for (const char c : result.err)
    EXPECT_TRUE(c == '\n' || static_cast<unsigned char>(c) >= 0x20) << static_cast<int>(c);
}

class BadInput : public testing::Test {
 protected:
  void expect(const std::string& key, const std::string& value, const std::string& named) {
    SCOPED_TRACE(key);
    expect_user_error({"train", config_, "--" + key, value}, named);
    EXPECT_FALSE(std::filesystem::exists(folder_.path("run/metrics.jsonl")));
  }
  TemporaryFolder folder_;
  std::string config_ = write_tiny_run(folder_);
};

TEST_F(BadInput, Overrides) {
  expect("training.stepz", "3", "--training.stepz: unknown key, did you mean `training.steps`?");
  expect("training.steps", "many", "--training.steps: expected an integer >= 1, found a string");
  expect("training.steps", "0", "--training.steps: expected an integer >= 1, found 0");
  expect("training.stop_at", "99", "training.stop_at");
  expect("training.seq_len", "4096",
         "training.seq_len = 4096 is longer than model.max_position_embeddings = 256");
  expect("model.attention.1.kind", "slidng", "did you mean `sliding`?");
  expect("model.attention.1.window", "0", "model.attention.1.window: expected an integer from 1");
  expect("model.attention.2.layers", "3", "layer 3 does not exist");
  expect("model.attention.2.layers", "1-2",
         "--model.attention.2.layers: layer 1 is served by both \"1\" (kind = ");
  expect("model.vocab_size", "0", "--model.vocab_size: expected an integer from 1");
  expect("parallel.context_parallel_degree", "2", "1 x -1 x 2, expected a product of 1");
  expect("model.num_key_value_heads", "3", "num_key_value_heads");
  expect("job.task", "finetune", "checkpoint.initial_load_path");
  expect("job.dump_folder", "/proc/nothing", "job.dump_folder");
  expect("data.tokenizer", folder_.path("corpus"), "--data.tokenizer: " + folder_.path("corpus") + ": ");
  const std::string nowhere = folder_.path("nowhere.txt");
  expect("data.train", "['" + nowhere + "']", "--data.train: " + nowhere + ": no such file or folder");
  expect("data.valid", "['" + nowhere + "']", "--data.valid: " + nowhere + ": no such file or folder");
}

TEST_F(BadInput, Files) {
  folder_.write("empty.txt", "");
  folder_.write("foreign.h5", "this is no HDF5 file at all, but long enough to be looked at");
  folder_.write("tokenizer.json", "{\"model\": {\"type\": \"WordPiece\"}}");
  expect("data.train", "['" + folder_.path("empty.txt") + "']", "empty.txt");
  expect("data.train", "['" + folder_.path("foreign.h5") + "']", "foreign.h5");
  expect("data.tokenizer", folder_.path("tokenizer.json"), "WordPiece");
  expect_user_error({"train", folder_.path("none.toml")}, "none.toml: no such file");
  expect_user_error({"train", folder_.path()}, ": is a folder");
  expect_user_error({"train", folder_.write("bare.toml", "[[model.attention]]\nkind = nsa\n")},
                    "bare.toml:2: not TOML");
  expect_user_error(
      {"train", folder_.write("twice.toml", "[model.attention]\nkind = 'nsa'\n[model.attention]\n")},
      "written [[model.attention]]");
  expect_user_error({"train", folder_.write("bad.toml", "[job\n")}, "bad.toml:1");
  expect_user_error({"train", folder_.write("kind.toml", "\n[[model.attention]]\nkind = 'densee'\n")},
                    "kind.toml:3: model.attention.0.kind: expected one of");
}

TEST_F(BadInput, DataErrorsNameTheFileAndTheKey) {
  const auto config = [&](const std::string& data) {
    return folder_.write("data.toml", "[job]\ndump_folder = '" + folder_.path("run") + "'\n[data]\n" + data);
  };
  const std::string text = "'" + folder_.path("corpus/one.txt") + "'";
  expect_user_error({"train", config("train = [" + text + "]\ntokenizer = 'tokenizer_missing'\n")},
                    "data.toml: data.tokenizer: tokenizer_missing: no such file or folder");
  expect_user_error({"train", config("train = [" + text + ", 'gone.txt']\n")},
                    "data.toml: data.train: gone.txt: no such file or folder");
  expect_user_error({"train", config("train = [" + text + "]\nvalid = ['gone.txt']\n")},
                    "data.toml: data.valid: gone.txt: no such file or folder");
}

TEST_F(BadInput, Verbs) {
  expect_user_error({"trian"}, "did you mean `train`?");
  expect_user_error({"eval", folder_.path("nowhere")}, "nowhere");
  expect_user_error({"generate", folder_.path("corpus"), "--prompt", "x"}, "corpus");
  expect_user_error({"generate", folder_.path("corpus"), "--temprature", "1"}, "temprature");
  expect_user_error({"info", "landmarc"}, "landmarc");
  expect_user_error({"data", "inspect", folder_.path("corpus/one.txt")}, "one.txt");
}

TEST_F(BadInput, CheckpointOfAnotherModel) {
  ASSERT_EQ(run_program({"train", config_, "--training.steps", "4"}).code, 0);
  const std::string before = read_text(folder_.path("run/metrics.jsonl"));
  expect_user_error({"train", config_, "--model.hidden_size", "64"}, "is of another model");
  EXPECT_EQ(read_text(folder_.path("run/metrics.jsonl")), before);
}

}  // namespace
}  // namespace longreach::test
