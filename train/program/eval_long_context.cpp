#include "train/program/eval_long_context.h"

#include <algorithm>
#include <iostream>

#include "train/chat_form.h"
#include "train/program/long_context_report.h"
#include "train/progress.h"
#include "train/tokenizer_export.h"

namespace longreach {

const std::vector<std::string>& long_context_options() {
  static const std::vector<std::string> names{"--lengths",  "--depths",  "--samples", "--seed",
                                              "--haystack", "--no-chat", "--out"};
  return names;
}

void add_options(CLI::App& app, LongContextRequest& request) {
  LongContextOptions& options = request.options;
  app.add_option("--lengths", options.lengths, "passkey, niah: tokens of a sample, such as 1024,2048")
      ->delimiter(',')
      ->check(CLI::PositiveNumber);
  app.add_option("--depths", options.depths, "passkey, niah: where in the text the fact stands, 0 to 1")
      ->delimiter(',')
      ->check(CLI::Range(0.0, 1.0));
  app.add_option("--samples", options.samples, "passkey, niah: samples of each length and depth")
      ->check(CLI::PositiveNumber);
  app.add_option("--seed", options.seed, "passkey, niah: the same seed asks the same");
  app.add_option("--haystack", options.haystack,
                 "niah: a text file in which to hide the needle; default: the sentences of passkey");
  app.add_flag("--no-chat", request.no_chat,
               "passkey, niah: plain prompts, whether the model came with a chat template or not");
  app.add_option("--out", request.out,
                 "passkey, niah: folder for long_context.json, long_context.md and a heat map of each task");
}

void eval_long_context(const SavedModel& saved, LongContextRequest request, const std::string& json_file) {
  const std::vector<std::string>& tasks = request.options.tasks;
  check(request.options.haystack.empty() || std::find(tasks.begin(), tasks.end(), "niah") != tasks.end(),
        "--haystack: is for niah, and --tasks has ", join(tasks, ","));
  const auto chat = request.no_chat ? std::nullopt : chat_form(saved);
  // A template writes bos itself, where its model wants one.
  if (chat)
    request.options.form = *chat;
  else
    request.options.begins_with_bos = begins_with_bos(saved);
  EvaluationClock clock;
  ProgressLine line(stderr);
  const auto cells = evaluate_long_context(
      saved, request.options, [&](int64_t done, int64_t all) { line.activity(clock.at(done, all)); });
  line.finish();
  const auto json = to_json(saved, request.options, chat.has_value(), cells);
  std::cout << (chat ? "prompts in the model's chat template" : "plain prompts")
            << (request.options.begins_with_bos ? ", behind bos\n\n" : "\n\n");
  std::cout << to_tables(request.options, cells);
  if (!json_file.empty()) write_json(json_file, json);
  if (request.out.empty()) return;
  for (const std::string& file : write_report(request.out, json, request.options, cells))
    std::cout << file << "\n";
}

}  // namespace longreach
