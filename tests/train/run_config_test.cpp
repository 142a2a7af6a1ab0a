// Every config that is shipped reads; the example names every key.
#include "train/run_config.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <map>

#include "core/error.h"
#include "tests/support/errors.h"
#include "tests/support/program.h"
#include "train/program/example_config.h"

namespace longreach {
namespace {

namespace fs = std::filesystem;

TEST(RunConfig, EveryShippedConfigReads) {
  int count = 0;
  for (const auto& file : fs::directory_iterator(fs::path(LONGREACH_SOURCE_DIR) / "configs")) {
    if (file.path().extension() != ".toml") continue;
    SCOPED_TRACE(file.path().string());
    RunConfig config = read_run_config(file.path().string(), {});
    config.model.resolve(257);
    attention_per_layer(config.model.attention, config.model.num_hidden_layers);
    ++count;
  }
  EXPECT_GE(count, 4);
}

TEST(RunConfig, TheExampleIsWhatTheProgramPrints) {
  EXPECT_EQ(test::read_text(LONGREACH_SOURCE_DIR "/configs/every_key.toml"), example_config())
      << "regenerate: longreach train --help > configs/every_key.toml";
}

TEST(RunConfig, PrintsWhatItReads) {
  const RunConfig config = parse_run_config(example_config(), "example");
  RunConfig copy = config;
  RunConfig again = parse_run_config(to_toml(fields_of(copy)), "again");
  EXPECT_EQ(to_toml(fields_of(copy)), to_toml(fields_of(again)));
}

// Numbers with which no update can be made.
TEST(RunConfig, OptimizerNumbersAreOnesItCanUse) {
  const auto error = [](const std::string& line) -> std::string {
    try {
      parse_run_config("[optimizer]\n" + line + "\n", "a.toml");
    } catch (const ConfigError& refused) {
      return refused.what();
    }
    return "";
  };
  for (const char* line : {"beta1 = 0.0", "beta1 = 0.999999", "beta2 = 0.0", "lr = 1e38", "eps = 1e-30"})
    EXPECT_EQ(error(line).find("optimizer."), std::string::npos) << line << ": " << error(line);
  for (const char* line :
       {"beta1 = 1.0", "beta2 = 1", "beta1 = -0.1", "lr = inf", "lr = nan", "lr = 0", "lr = -1.0",
        "eps = 0.0", "eps = 1e-50", "eps = nan", "eps = inf", "weight_decay = inf"}) {
    const std::string found = error(line);
    EXPECT_NE(found.find("optimizer."), std::string::npos) << line << ": " << found;
    EXPECT_NE(found.find("expected a number"), std::string::npos) << line << ": " << found;
  }
  EXPECT_NE(error("beta1 = 1.0").find("expected a number in [0.0, 1.0)"), std::string::npos);
}

// A run whose dense layers ask for cuDNN, with everything that this needs; each key in turn is taken back.
TEST(RunConfig, CudnnIsHeldToWhatItTakes) {
  const std::vector<std::pair<std::string, std::string>> needed = {
      {"parallel.device", "\"cuda\""},
      {"training.mixed_precision_param", "\"bfloat16\""},
      {"training.varlen", "false"},
      {"training.deterministic", "false"}};
  const std::map<std::string, std::string> taken_back = {{"parallel.device", "\"cpu\""},
                                                         {"training.mixed_precision_param", "\"float32\""},
                                                         {"training.varlen", "true"},
                                                         {"training.deterministic", "true"}};
  const auto toml = [&](const std::string& wrong) {
    std::string parallel, training;
    for (const auto& [key, value] : needed) {
      const size_t dot = key.find('.');
      (key.starts_with("parallel") ? parallel : training) +=
          key.substr(dot + 1) + " = " + (key == wrong ? taken_back.at(key) : value) + "\n";
    }
    return "[data]\ntrain = [\"x.txt\"]\n[parallel]\n" + parallel + "[training]\n" + training +
           "[[model.attention]]\nkind = \"dense\"\nbackend = \"cudnn\"\n";
  };
  EXPECT_NO_THROW(parse_run_config(toml(""), "run.toml"));
  for (const auto& [key, value] : needed) {
    try {
      parse_run_config(toml(key), "run.toml");
      ADD_FAILURE() << "accepted without " << key;
    } catch (const ConfigError& error) {
      EXPECT_NE(std::string(error.what()).find("model.attention.backend = \"cudnn\" needs " + key),
                std::string::npos)
          << error.what();
    }
  }
}

TEST(RunConfig, DegreesAreCountsOrWhatOthersLeave) {
  const auto read = [](const std::string& key, const std::string& value) {
    parse_run_config("[data]\ntrain = [\"x.txt\"]\n[parallel]\n" + key + " = " + value + "\n", "run.toml");
  };
  for (const char* key :
       {"data_parallel_replicate_degree", "data_parallel_shard_degree", "context_parallel_degree"}) {
    for (const char* value : {"1", "8", "-1"}) EXPECT_NO_THROW(read(key, value));
    for (const char* value : {"0", "-2"})
      test::expect_error<ConfigError>(
          text("run.toml:4: parallel.", key, ": found ", value, ", expected 1 or more, or -1"),
          [&] { read(key, value); });
  }
  test::expect_error<ConfigError>("expected one of ptrr, headtail, none",
                                  [&] { read("context_parallel_load_balancer", "\"zigzag\""); });
  test::expect_error<ConfigError>("expected one of fetch, heads, auto",
                                  [&] { read("context_parallel_method", "\"ring\""); });
}

}  // namespace
}  // namespace longreach
