#include "tests/support/tiny_run.h"

#include <nlohmann/json.hpp>
#include <random>
#include <sstream>

namespace longreach::test {

std::string generated_prose(size_t bytes, uint64_t seed) {
  static const std::vector<std::string> words = {
      "the",  "old",  "sea", "moves", "under", "a",     "grey",  "sky",  "and",  "ships", "come", "home",
      "with", "salt", "on",  "their", "oars",  "while", "bells", "ring", "from", "tower", "to",   "tower"};
  std::mt19937_64 random(seed);
  std::string prose;
  size_t previous = 0;
  while (prose.size() < bytes) {
    const size_t length = 4 + random() % 8;
    for (size_t i = 0; i < length; ++i) {
      // A word is followed by one of three, so that there is something to learn beyond letters.
      previous = (previous * 5 + 1 + random() % 3) % words.size();
      prose += (i ? " " : "") + words[previous];
    }
    prose += random() % 4 ? ". " : ".\n";
  }
  return prose;
}

std::string write_tiny_run(const TemporaryFolder& folder) {
  folder.write("corpus/one.txt", generated_prose(60000, 1));
  folder.write("corpus/two.txt", generated_prose(20000, 2));
  return folder.write("run.toml",
                      "[job]\ndump_folder = \"" + folder.path("run") +
                          "\"\n"
                          "[model]\nhidden_size = 32\nnum_hidden_layers = 3\nnum_attention_heads = "
                          "4\nnum_key_value_heads = 2\n"
                          "max_position_embeddings = 256\n"
                          "[[model.attention]]\nkind = \"lightning\"\nlayers = \"0\"\n"
                          "[[model.attention]]\nkind = \"sliding\"\nlayers = \"1\"\nwindow = 16\nsinks = 2\n"
                          "[[model.attention]]\nkind = \"dense\"\nlayers = \"2\"\n"
                          "[data]\ntrain = [\"" +
                          folder.path("corpus") +
                          "\"]\ntokenizer = \"bytes\"\n"
                          "[training]\nseq_len = 64\nbatch_size = 4\ngradient_accumulation_steps = 2\nsteps "
                          "= 12\nthreads = 1\n"
                          "[optimizer]\nlr = 3e-3\n[lr_scheduler]\nwarmup_steps = 3\n"
                          "[checkpoint]\ninterval = 4\nkeep_latest_k = 0\n"
                          "[validation]\nfinal = false\n[sample]\ntokens = 0\n[metrics]\nplot = false\n");
}

std::vector<MetricsLine> read_metrics(const std::string& run_folder) {
  std::vector<MetricsLine> lines;
  std::istringstream file(read_text(run_folder + "/metrics.jsonl"));
  for (std::string line; std::getline(file, line);) {
    const auto json = nlohmann::json::parse(line);
    MetricsLine values;
    for (const auto& [name, value] : json.items())
      if (value.is_number()) values[name] = value.get<double>();
    lines.push_back(std::move(values));
  }
  return lines;
}

std::map<int64_t, double> losses(const std::string& run_folder) {
  std::map<int64_t, double> result;
  for (const MetricsLine& line : read_metrics(run_folder))
    if (line.count("loss")) result[static_cast<int64_t>(line.at("step"))] = line.at("loss");
  return result;
}

ProgramResult train(const std::string& config, const std::vector<std::string>& overrides) {
  std::vector<std::string> words = {"train", config};
  words.insert(words.end(), overrides.begin(), overrides.end());
  return run_program(words);
}

}  // namespace longreach::test
