// `longreach generate CHECKPOINT --prompt TEXT`: samples, and prints the text as it grows; with --chat,
// answers turn by turn.
#include <unistd.h>

#include <fstream>
#include <iostream>
#include <sstream>

#include "models/weight_dtype.h"
#include "train/chat.h"
#include "train/generate_text.h"
#include "train/program/command_line.h"
#include "train/saved_model.h"
#include "train/tokenizer_export.h"

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

void print_answer(Chat& chat, const std::string& message) {
  chat.answer(message, [](std::string_view piece) { std::cout << piece << std::flush; });
  std::cout << std::endl;
}

// A line of standard input is a message; a person is shown where to write.
void answer_lines(Chat& chat) {
  const bool asks = ::isatty(STDIN_FILENO) != 0;
  for (std::string line;;) {
    if (asks) std::cerr << "> " << std::flush;
    if (!std::getline(std::cin, line)) break;
    if (line.find_first_not_of(" \t\r") != std::string::npos) print_answer(chat, line);
  }
  if (asks) std::cerr << std::endl;
}

}  // namespace

int generate_verb(const Arguments& arguments) {
  std::string checkpoint, prompt_file, system, dtype = "float32";
  TextRequest request;
  SamplingOptions& options = request.sampling;
  bool ids = false, chats = false;
  CLI::App app("samples from a checkpoint, token by token", "generate");
  app.add_option("CHECKPOINT", checkpoint, "run, checkpoint folder or step folder")->required();
  auto* given = app.add_option("--prompt", request.prompt, "text to continue");
  app.add_option("--prompt-file", prompt_file, "file with the text to continue; - is standard input")
      ->excludes(given);
  auto* chat = app.add_flag(
      "--chat", chats,
      "answer in the chat template that came with the model: to --prompt, or else to every line of "
      "standard input, turn by turn; only answers are printed");
  app.add_option("--system", system, "with --chat: what the conversation begins with")->needs(chat);
  app.add_option("--max-new-tokens", options.max_new_tokens, "tokens to sample")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--temperature", options.temperature, "0: greedy")->check(CLI::Range(0.0, 100.0));
  app.add_option("--top-k", options.top_k, "draw from the k likeliest; 0: all")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--top-p", options.top_p, "draw from the smallest set of this mass")
      ->check(CLI::Range(1e-9, 1.0));
  auto* stops = app.add_option("--stop", request.stop,
                               "text that ends generation and is not printed; may be given more than once. "
                               "eos and the end of a "
                               "turn in the run's chat template always end it")
                    ->allow_extra_args(false);
  chat->excludes(stops);
  app.add_option("--seed", options.seed, "the same seed draws the same text");
  app.add_option("--dtype", dtype,
                 "float32, or bfloat16: weights are rounded to it, and half as much is read a token")
      ->check(CLI::IsMember({"float32", "bfloat16"}))
      ->capture_default_str();
  chat->excludes(app.add_flag("--ids", ids, "print token ids instead of text"));
  if (!parse_arguments(app, arguments)) return 0;

  for (const std::string& stop : request.stop)
    check(!stop.empty(), "--stop: expected a text, found an empty one");
  if (!prompt_file.empty()) request.prompt = read_prompt(prompt_file);

  const SavedModel saved = load_saved_model(checkpoint);
  store_matrices_as(*saved.model, dtype == "bfloat16" ? at::kBFloat16 : at::kFloat);
  if (chats) {
    Chat conversation(saved, options, system);
    if (given->count() > 0 || !prompt_file.empty())
      print_answer(conversation, request.prompt);
    else
      answer_lines(conversation);
    return 0;
  }
  request.chat_template = saved.config.data.chat_template;
  request.begins_with_bos = begins_with_bos(saved);
  request.sampling.stop_tokens = saved.ends_of_text();
  if (ids)
    request.on_token = [](data::Token id) { std::cout << id << " " << std::flush; };
  else
    request.on_text = [](std::string_view piece) { std::cout << piece << std::flush; };
  generate_text(*saved.model, saved.expect_tokenizer(), request);
  std::cout << std::endl;
  return 0;
}

}  // namespace longreach
