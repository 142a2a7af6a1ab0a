#include "train/program/synthesize.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "data/synthetic/sample.h"
#include "train/tokenizer_folder.h"

namespace longreach {
namespace {

using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

Json line_of(const data::SampleOptions& options, const data::SyntheticSample& sample, bool messages) {
  Json line;
  if (messages)
    line["messages"] = {{{"role", "user"}, {"content", sample.request}},
                        {{"role", "assistant"}, {"content", sample.beginning + sample.answer + "."}}};
  else
    line = {{"prompt", sample.prompt}, {"completion", sample.answer}};
  line["task"] = options.task;
  line["length"] = options.length;
  line["tokens"] = sample.tokens;
  if (data::hides_fact(options.task)) line["depth"] = sample.depth;
  return line;
}

std::vector<data::SampleOptions> samples_of(const SynthesizeRequest& request) {
  const std::vector<double> depths = data::hides_fact(request.task) ? request.depths : std::vector<double>{0};
  std::vector<data::SampleOptions> all;
  for (const int64_t length : request.lengths)
    for (const double depth : depths)
      for (int64_t sample = 0; sample < request.samples; ++sample)
        all.push_back(
            {.task = request.task, .length = length, .depth = depth, .seed = request.seed, .sample = sample});
  return all;
}

}  // namespace

CLI::App* add_synthesize(CLI::App& data, SynthesizeRequest& request) {
  CLI::App* app = data.add_subcommand(
      "synthesize",
      "Writes samples of a task as JSONL: passkey and niah hide a fact in a long text and ask "
      "for it, copy repeats words");
  app->add_option("TASK", request.task, join(data::synthetic_tasks()))
      ->required()
      ->check(CLI::IsMember(data::synthetic_tasks()));
  app->add_option("OUT", request.output, "a new JSONL file")->required();
  app->add_option("--tokenizer", request.tokenizer,
                  "bytes, a folder with tokenizer.json/.model, or a GGUF file");
  app->add_option("--lengths", request.lengths, "tokens of prompt and completion at most, such as 1024,2048")
      ->delimiter(',')
      ->check(CLI::PositiveNumber);
  app->add_option("--depths", request.depths, "where in the text the fact stands, 0 to 1")
      ->delimiter(',')
      ->check(CLI::Range(0.0, 1.0));
  app->add_option("--samples", request.samples, "samples of each length and depth")
      ->check(CLI::PositiveNumber);
  app->add_option("--seed", request.seed, "the same seed writes the same file");
  app->add_option("--haystack", request.haystack,
                  "niah: a text file in which to hide the needle; default: the sentences of passkey");
  app->add_option(
         "--form", request.form,
         "keys of a line: prompt and completion, or messages; beside them task, length, tokens of the "
         "plain prompt, and the measured depth")
      ->check(CLI::IsMember({"completion", "messages"}));
  return app;
}

int synthesize_samples(const SynthesizeRequest& request) {
  const std::string& output = request.output;
  check(request.haystack.empty() || request.task == "niah", "--haystack: is for niah, not for ",
        request.task);
  check(!fs::exists(output), one_line(output), ": exists already; expected a new file");
  const auto tokenizer = TokenizerFolder(request.tokenizer).load();
  const data::Haystack haystack = request.haystack.empty()
                                      ? data::Haystack::repeated(*tokenizer)
                                      : data::Haystack::of_file(request.haystack, *tokenizer);
  const std::vector<data::SampleOptions> all = samples_of(request);
  const auto line = [&](const data::SampleOptions& options) {
    return line_of(options, data::synthesize(options, haystack, *tokenizer), request.form == "messages")
        .dump(-1, ' ', false, Json::error_handler_t::replace);
  };
  for (const data::SampleOptions& options : all)
    if (options.sample == 0) line(options);  // what is too short is refused before a file is there
  const std::string partial = output + ".partial";
  std::ofstream file(partial);
  for (const data::SampleOptions& options : all) file << line(options) << "\n";
  std::error_code failed;
  if (file.flush().good()) fs::rename(partial, output, failed);
  const bool written = file.good() && !failed;
  if (!written) fs::remove(partial, failed);
  check(written, one_line(output), ": cannot be written");
  std::cout << output << ": " << all.size() << " samples of " << request.task << "\n";
  return 0;
}

}  // namespace longreach
