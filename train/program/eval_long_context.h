// The part of `longreach eval` that asks for facts in long texts.
#pragma once
#include <string>
#include <vector>

#include "train/long_context.h"
#include "train/program/command_line.h"

namespace longreach {

struct LongContextRequest {
  LongContextOptions options{.tasks = {}, .lengths = {1024, 2048}, .depths = {0, 0.25, 0.5, 0.75, 1}};
  bool no_chat = false;  // prompts are plain, whether the model came with a chat template or not
  std::string out;       // folder for JSON, tables and pictures; empty: none
};

// --lengths, --depths, --samples, --seed, --haystack, --no-chat, --out
const std::vector<std::string>& long_context_options();
void add_options(CLI::App& app, LongContextRequest& request);

// Measures, prints tables, and writes what the request asks for. json_file: for the figures; empty: none.
void eval_long_context(const SavedModel& saved, LongContextRequest request, const std::string& json_file);

}  // namespace longreach
