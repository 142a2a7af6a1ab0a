// What `eval --tasks passkey,niah` has measured, as JSON, as tables and as pictures.
#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "train/long_context.h"

namespace longreach {

// {"checkpoint", "step", "seed", "chat_template", "tasks": [{"task", "cells": [{"length", "depth",
// "accuracy", "nll", "answers": [...]}]}]}
nlohmann::ordered_json to_json(const SavedModel& saved, const LongContextOptions& options, bool chat,
                               const std::vector<LongContextCell>& cells);

// Of each task two tables in Markdown, the lengths down and the depths across: the share of right answers,
// and the mean likelihood of the answer.
std::string to_tables(const LongContextOptions& options, const std::vector<LongContextCell>& cells);

// Writes DIR/long_context.json, .md, and a heat map TASK.png of each task; a picture that cannot be drawn is
// a warning. Returns the files written. Throws UserError when the folder cannot be written.
std::vector<std::string> write_report(const std::string& folder, const nlohmann::ordered_json& json,
                                      const LongContextOptions& options,
                                      const std::vector<LongContextCell>& cells);

// Throws UserError when the file cannot be written.
void write_json(const std::string& path, const nlohmann::ordered_json& json);

}  // namespace longreach
