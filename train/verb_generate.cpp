// `longreach generate CHECKPOINT --prompt TEXT`: samples and prints each token as it comes.
#include "models/generate.h"

#include <ctime>
#include <fstream>
#include <iostream>
#include <sstream>

#include "train/command_line.h"
#include "train/saved_model.h"

namespace longreach {
namespace {

std::string read_prompt(const std::string& file) {
  std::ostringstream contents;
  if (file == "-") {
    contents << std::cin.rdbuf();
  } else {
    std::ifstream stream(file, std::ios::binary);
    check(stream.good() && (stream.peek() == EOF || contents << stream.rdbuf()), "--prompt-file: ", file,
          ": cannot be read");
  }
  return contents.str();
}

// Bytes of text held back until they end on a whole character, so that a terminal never sees half of one.
class Utf8Stream {
 public:
  void write(const std::string& bytes) {
    pending_ += bytes;
    const size_t whole = pending_.size() - incomplete_tail();
    std::cout << pending_.substr(0, whole) << std::flush;
    pending_.erase(0, whole);
  }
  void finish() { std::cout << pending_ << std::endl; }

 private:
  size_t incomplete_tail() const {
    for (size_t back = 1; back <= std::min<size_t>(3, pending_.size()); ++back) {
      const auto byte = static_cast<unsigned char>(pending_[pending_.size() - back]);
      if ((byte & 0xC0) == 0x80) continue;  // a continuation: look further back for its lead
      const size_t length = byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : byte >= 0xC0 ? 2 : 1;
      return length > back ? back : 0;
    }
    return 0;
  }
  std::string pending_;
};

}  // namespace

int generate_verb(const Arguments& arguments) {
  std::string checkpoint, prompt, prompt_file;
  SamplingOptions options;
  bool ids = false;
  CLI::App app("samples from a checkpoint, token by token", "generate");
  app.add_option("CHECKPOINT", checkpoint, "run, checkpoint folder or step folder")->required();
  auto* given = app.add_option("--prompt", prompt, "text to continue");
  app.add_option("--prompt-file", prompt_file, "file with the text to continue; - is standard input")
      ->excludes(given);
  app.add_option("--max-new-tokens", options.max_new_tokens, "tokens to sample")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--temperature", options.temperature, "0: greedy")->check(CLI::Range(0.0, 100.0));
  app.add_option("--top-k", options.top_k, "draw from the k likeliest; 0: all")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--top-p", options.top_p, "draw from the smallest set of this mass")
      ->check(CLI::Range(1e-9, 1.0));
  app.add_option("--seed", options.seed, "the same seed draws the same text");
  app.add_flag("--ids", ids, "print token ids instead of text");
  if (!parse_arguments(app, arguments)) return 0;

  SavedModel saved = load_saved_model(checkpoint);
  if (!prompt_file.empty()) prompt = read_prompt(prompt_file);
  std::vector<int64_t> tokens;
  for (const data::Token token : saved.tokenizer->encode(prompt)) tokens.push_back(token);
  if (tokens.empty()) {
    const auto first = saved.tokenizer->bos() ? saved.tokenizer->bos() : saved.tokenizer->eos();
    check(first.has_value(), "--prompt: the tokenizer has no token to begin a text with; give a prompt");
    tokens.push_back(*first);
  }
  if (const auto eos = saved.tokenizer->eos()) options.stop_tokens = {*eos};

  Utf8Stream stream;
  if (!ids) stream.write(prompt);
  generate(*saved.model, tokens, options, [&](int64_t token) {
    const auto id = static_cast<data::Token>(token);
    if (ids)
      std::cout << id << " " << std::flush;
    else
      stream.write(saved.tokenizer->decode({&id, 1}));
    return true;
  });
  stream.finish();
  return 0;
}

}  // namespace longreach
