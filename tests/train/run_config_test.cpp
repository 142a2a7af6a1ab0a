// Every config that is shipped reads; the example names every key.
#include "train/run_config.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "tests/support/program.h"
#include "train/example_config.h"

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
  EXPECT_EQ(test::read_text(std::string(LONGREACH_SOURCE_DIR) + "/configs/every_key.toml"), example_config())
      << "regenerate: longreach train --help > configs/every_key.toml";
}

TEST(RunConfig, PrintsWhatItReads) {
  const RunConfig config = parse_run_config(example_config(), "example");
  RunConfig copy = config;
  RunConfig again = parse_run_config(to_toml(fields_of(copy)), "again");
  EXPECT_EQ(to_toml(fields_of(copy)), to_toml(fields_of(again)));
}

}  // namespace
}  // namespace longreach
