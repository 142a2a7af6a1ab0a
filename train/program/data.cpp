// longreach data fetch | tokenize | inspect | synthesize | conversations: corpora in, token stores out, and
// what is in one; samples of tasks.
#include <fstream>
#include <iostream>
#include <iterator>

#include "data/corpora/byte_stream.h"
#include "data/corpora/fetch.h"
#include "data/corpora/token_bin.h"
#include "data/corpora/token_store.h"
#include "data/corpora/tokenize.h"
#include "data/show.h"
#include "data/synthetic/conversations.h"
#include "data/tokenizers/tokenizer.h"
#include "data/tokenizers/tokenizer_ends.h"
#include "train/program/command_line.h"
#include "train/program/synthesize.h"
#include "train/tokenizer_folder.h"

namespace longreach {
namespace {

int fetch(const std::string& name, const std::string& to) {
  const auto corpus = data::fetch_corpus(name, to);
  std::cout << name << ": " << corpus.files << " files, " << corpus.bytes << " bytes in "
            << corpus.text_folder << "\nlicence: " << corpus.licence << " (" << corpus.folder
            << "/LICENSE.txt)\n";
  return 0;
}

// One line of ids a file: nothing added, special tokens recognised.
int print_ids(const std::vector<std::string>& files, const data::Tokenizer& tokenizer) {
  for (const auto& path : files) {
    std::string line;
    for (const data::Token token : tokenizer.encode(data::read_whole(path))) {
      if (!line.empty()) line += ' ';
      line += std::to_string(token);
    }
    std::cout << line << '\n';
  }
  return 0;
}

std::vector<data::Token> parse_ids(const std::string& line, const std::string& where) {
  std::istringstream words(line);
  std::vector<data::Token> ids;
  for (std::string word; words >> word;) {
    size_t used = 0;
    int64_t id = -1;
    try {
      id = std::stoll(word, &used);
    } catch (const std::exception&) {
    }
    check<DataError>(used == word.size() && id >= 0 && id < int64_t{1} << 31, where, ": `",
                     one_line(word, 40), "` is not a token id");
    ids.push_back(static_cast<data::Token>(id));
  }
  return ids;
}

// Id lists, one a line, to the bytes they stand for, in hexadecimal, one line each.
int decode(const std::vector<std::string>& files, const data::Tokenizer& tokenizer) {
  constexpr char kDigits[] = "0123456789abcdef";
  for (const auto& path : files) {
    data::LineReader reader(path);
    for (std::string line; reader.next(line);) {
      std::string hex;
      for (const unsigned char byte : tokenizer.decode(parse_ids(line, text(path, ":", reader.number())))) {
        hex += kDigits[byte >> 4];
        hex += kDigits[byte & 15];
      }
      std::cout << hex << '\n';
    }
  }
  return 0;
}

struct TokenizeArguments {
  std::vector<std::string> files;
  std::string tokenizer = "bytes";
  bool gzip = false, print_ids = false, decode = false;
  data::TokenizeOptions options{.chat_template = "auto"};
};

int tokenize(TokenizeArguments arguments) {
  const TokenizerFolder folder(arguments.tokenizer);
  const auto tokenizer = folder.load();
  if (arguments.print_ids) return print_ids(arguments.files, *tokenizer);
  if (arguments.decode) return decode(arguments.files, *tokenizer);
  auto& files = arguments.files;
  check<UserError>(files.size() >= 2, "data tokenize: expected INPUT... OUTPUT.h5, found ", files.size(),
                   " path");
  const std::string output = files.back();
  files.pop_back();
  check<UserError>(output.ends_with(".h5") || output.ends_with(".hdf5"), "data tokenize: OUTPUT `",
                   one_line(output, 200), "`, expected a name that ends in .h5");
  for (auto& input : files)
    if (data::is_named_corpus(input)) input = data::fetch_corpus(input).text_folder;
  arguments.options.gzip_level = arguments.gzip ? 4 : 0;
  arguments.options.progress = true;
  arguments.options.chat = data::chat_format_of(arguments.options.chat_template, folder.path());
  arguments.options.bos = data::bos_before_texts(*tokenizer, folder.path());
  data::tokenize_files(files, *tokenizer, arguments.options, output);
  const auto store = data::TokenStore::open(output);
  std::cout << output << ": " << store->num_tokens() << " tokens, " << store->document_offsets().size() - 1
            << " documents\n";
  return 0;
}

int64_t longest_document(const std::vector<int64_t>& offsets) {
  int64_t longest = 0;
  for (size_t i = 1; i < offsets.size(); ++i) longest = std::max(longest, offsets[i] - offsets[i - 1]);
  return longest;
}

struct InspectArguments {
  std::string file, tokenizer;
  data::ShowOptions show{.documents = 0};
};

// The store names its tokenizer by a fingerprint; only that of bytes is known without a folder.
std::unique_ptr<data::Tokenizer> tokenizer_of(const InspectArguments& arguments,
                                              const data::StoreAbout& about) {
  if (!arguments.tokenizer.empty()) return TokenizerFolder(arguments.tokenizer).load();
  auto bytes = data::load_tokenizer("bytes");
  check<UserError>(bytes->fingerprint() == about.tokenizer_fingerprint, one_line(arguments.file),
                   ": made with the tokenizer `", one_line(about.tokenizer_name, 100),
                   "`; --show needs it: --tokenizer FOLDER (with tokenizer.json or .model)");
  return bytes;
}

int inspect(const InspectArguments& arguments) {
  const std::string& path = arguments.file;
  const auto store = data::TokenStore::open(path);
  const auto tokenizer = arguments.show.documents > 0 ? tokenizer_of(arguments, store->about()) : nullptr;
  const auto& about = store->about();
  const auto documents = static_cast<int64_t>(store->document_offsets().size()) - 1;
  std::cout << path << "\n  documents    " << documents << "\n  tokens       " << store->num_tokens()
            << "\n  longest      " << longest_document(store->document_offsets())
            << " tokens\n  tokenizer    " << one_line(about.tokenizer_name, 100) << ", " << about.vocab_size
            << " ids, fingerprint " << one_line(about.tokenizer_fingerprint, 100) << "\n  loss mask    "
            << (about.loss_mask ? "yes" : "no") << "\n  source       " << one_line(about.source, 600)
            << "\n  bytes        " << store->file_bytes() << std::endl;
  store->verify();
  std::cout << "  checksums    OK\n";
  if (tokenizer) data::show_documents(*store, *tokenizer, arguments.show, std::cout);
  return 0;
}

struct ConversationsArguments {
  std::string output;
  data::ConversationsOptions options;
};

CLI::App* add_conversations(CLI::App& data, ConversationsArguments& arguments) {
  CLI::App* app = data.add_subcommand("conversations",
                                      "Writes questions and answers as JSONL with messages: headings of "
                                      "documents in reStructuredText, and the "
                                      "first paragraph below each");
  app->add_option("OUT", arguments.output, "a new JSONL file")->required();
  app->add_option("--from", arguments.options.source, "a folder of documents, or a corpus by its name");
  app->add_option("--samples", arguments.options.samples, "conversations to write")
      ->check(CLI::PositiveNumber);
  app->add_option("--skip", arguments.options.skip,
                  "conversations before them, such as those of another file")
      ->check(CLI::NonNegativeNumber);
  app->add_option("--seed", arguments.options.seed, "of the order in which they are drawn");
  return app;
}

int write(const ConversationsArguments& arguments) {
  const int64_t all = data::write_conversations(arguments.output, arguments.options);
  std::cout << arguments.output << ": " << arguments.options.samples << " conversations of " << all << "\n";
  return 0;
}

}  // namespace

int data_verb(const Arguments& arguments) {
  CLI::App app("Fetches corpora, tokenizes text, describes token stores and makes up tasks.", "data");
  app.require_subcommand(1);

  std::string name, to;
  auto* fetch_command =
      app.add_subcommand("fetch", "Fetches a corpus by name: " + join(data::corpus_names()));
  fetch_command->add_option("NAME", name, "corpus")->required();
  fetch_command->add_option("--to", to, "folder to make; default: the user's cache");

  TokenizeArguments options;
  auto* tokenize_command =
      app.add_subcommand("tokenize",
                         "Text files, JSONL files, folders or named corpora to a token store; goes on where "
                         "an earlier call was cut off");
  tokenize_command
      ->add_option("FILES", options.files, "INPUT... OUTPUT.h5 (with --print-ids, --decode: INPUT...)")
      ->required();
  tokenize_command->add_option("--tokenizer", options.tokenizer,
                               "bytes, a folder with tokenizer.json/.model, or a GGUF file");
  tokenize_command->add_flag("--gzip", options.gzip,
                             "compress the tokens; reading a window takes milliseconds then");
  tokenize_command->add_option("--text-key", options.options.text_key, "key of the text in JSONL lines");
  tokenize_command
      ->add_option("--chat-template", options.options.chat_template, "for JSONL lines with messages")
      ->check(CLI::IsMember({"auto", "checkpoint", "chatml", "llama3"}))
      ->capture_default_str();
  auto* print_flag =
      tokenize_command->add_flag("--print-ids", options.print_ids, "print one line of ids a file");
  tokenize_command
      ->add_flag("--decode", options.decode, "print the bytes of id lists, one a line, in hexadecimal")
      ->excludes(print_flag);

  auto* inspect_command = app.add_subcommand("inspect", "Describes a token store and checks every checksum");
  InspectArguments inspected;
  inspect_command->add_option("FILE", inspected.file, "token store")->required();
  auto* show =
      inspect_command
          ->add_option("--show", inspected.show.documents,
                       "print this many documents as text: lines with + are labels, lines with - are not")
          ->check(CLI::Range(int64_t{1}, int64_t{1} << 40));
  inspect_command->add_option("--from", inspected.show.first, "the first document to show")
      ->check(CLI::NonNegativeNumber)
      ->needs(show)
      ->capture_default_str();
  inspect_command
      ->add_option("--tokens", inspected.show.tokens, "tokens to show of a document at most; 0: all")
      ->check(CLI::NonNegativeNumber)
      ->needs(show)
      ->capture_default_str();
  inspect_command
      ->add_option("--tokenizer", inspected.tokenizer,
                   "the one that the store was made with, to show text: bytes, a folder with "
                   "tokenizer.json/.model, or a GGUF file")
      ->needs(show);

  SynthesizeRequest synthesized;
  auto* synthesize_command = add_synthesize(app, synthesized);
  ConversationsArguments conversations;
  auto* conversations_command = add_conversations(app, conversations);

  if (!parse_arguments(app, arguments)) return 0;
  if (fetch_command->parsed()) return fetch(name, to);
  if (tokenize_command->parsed()) return tokenize(std::move(options));
  if (synthesize_command->parsed()) return synthesize_samples(synthesized);
  if (conversations_command->parsed()) return write(conversations);
  return inspect(inspected);
}

}  // namespace longreach
