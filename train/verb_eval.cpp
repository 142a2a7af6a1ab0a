// `longreach eval CHECKPOINT`: likelihood of held-out text by position in the document.
#include <fstream>
#include <iomanip>
#include <iostream>
#include <nlohmann/json.hpp>

#include "train/command_line.h"
#include "train/evaluate.h"
#include "train/saved_model.h"

namespace longreach {
namespace {

nlohmann::ordered_json to_json(const SavedModel& saved, const Evaluation& evaluation) {
  nlohmann::ordered_json json;
  json["checkpoint"] = saved.path;
  json["step"] = saved.step;
  json["tokens"] = evaluation.tokens;
  json["nll"] = evaluation.nll;
  json["perplexity"] = evaluation.perplexity;
  json["bits_per_byte"] = evaluation.bits_per_byte;
  for (const PositionBucket& bucket : evaluation.buckets)
    json["positions"].push_back(
        {{"first", bucket.first}, {"last", bucket.last}, {"tokens", bucket.tokens}, {"nll", bucket.nll}});
  return json;
}

void print_table(const Evaluation& evaluation) {
  std::cout << "  position            tokens        nll  perplexity\n" << std::fixed;
  for (const PositionBucket& bucket : evaluation.buckets)
    std::cout << std::setw(8) << bucket.first << " - " << std::left << std::setw(8) << bucket.last
              << std::right << std::setw(9) << bucket.tokens << std::setw(11) << std::setprecision(4)
              << bucket.nll << std::setw(12) << std::exp(bucket.nll) << "\n";
  std::cout << "all " << evaluation.tokens << " tokens: nll " << std::setprecision(6) << evaluation.nll
            << ", perplexity " << evaluation.perplexity << ", " << evaluation.bits_per_byte
            << " bits per byte\n";
}

}  // namespace

int eval_verb(const Arguments& arguments) {
  std::string checkpoint, json_file, dtype = "float32", tasks = "ppl";
  std::vector<std::string> files;
  int64_t seq_len = 0, rows = 0, batch_size = 1;
  CLI::App app("perplexity of held-out text, by position in the document", "eval");
  app.add_option("CHECKPOINT", checkpoint, "run, checkpoint folder or step folder")->required();
  app.add_option("--tasks", tasks, "what to measure: ppl")->check(CLI::IsMember({"ppl"}));
  app.add_option("--data", files, "held-out text or token stores; default: the run's own held-out split");
  app.add_option("--seq-len", seq_len, "tokens a row; default: the run's")->check(CLI::NonNegativeNumber);
  app.add_option("--rows", rows, "rows to read, spread evenly; 0: all")->check(CLI::NonNegativeNumber);
  app.add_option("--batch-size", batch_size, "rows a forward pass")->check(CLI::PositiveNumber);
  app.add_option("--dtype", dtype, "dtype of matmuls and attention")
      ->check(CLI::IsMember({"float32", "bfloat16"}));
  app.add_option("--json", json_file, "write the figures here too");
  if (!parse_arguments(app, arguments)) return 0;

  SavedModel saved = load_saved_model(checkpoint);
  if (dtype == "bfloat16")
    expect_ability(saved.config.model.attention, Ability::bfloat16, "--dtype bfloat16");
  data::DataConfig data = saved.config.data;
  if (!files.empty()) data.valid = files;
  const data::Corpus corpus =
      data::open_corpus(data, saved.config.job.dump_folder + "/data", saved.tokenizer);
  const data::ValidLoader loader(corpus, {.seq_len = seq_len ? seq_len : saved.config.training.seq_len,
                                          .seed = static_cast<uint64_t>(saved.config.training.seed),
                                          .varlen = saved.config.training.varlen});
  const Evaluation evaluation =
      evaluate(*saved.model, loader, rows, batch_size, {.autocast_bf16 = dtype == "bfloat16"});
  print_table(evaluation);
  if (!json_file.empty()) {
    std::ofstream file(json_file);
    file << to_json(saved, evaluation).dump(2) << "\n";
    check(file.flush().good(), json_file, ": cannot be written");
  }
  return 0;
}

}  // namespace longreach
