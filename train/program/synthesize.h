// `longreach data synthesize TASK OUT`: samples of the synthetic tasks as lines to train on or to look at.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "train/program/command_line.h"

namespace longreach {

struct SynthesizeRequest {
  std::string task, output, tokenizer = "bytes", haystack, form = "completion";
  std::vector<int64_t> lengths{1024};
  std::vector<double> depths{0, 0.25, 0.5, 0.75, 1};
  int64_t samples = 5;
  uint64_t seed = 0;
};

// The subcommand of `data`, with its options.
CLI::App* add_synthesize(CLI::App& data, SynthesizeRequest& request);

// Writes the file, which appears whole or not at all. Throws UserError: it exists, or cannot be written.
int synthesize_samples(const SynthesizeRequest& request);

}  // namespace longreach
