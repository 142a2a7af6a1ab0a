// From text to a token store. Inputs are text files (one document each), folders of them (every file below,
// sorted by path), and JSONL files (one document a line); each may be compressed (.gz, .zst). A JSONL line
// holds `text` (any key, `text_key`), `prompt` and `completion`, or `messages`; the first line decides
// whether the store carries a loss mask.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/corpora/chat_format.h"
#include "data/corpora/token_source.h"
#include "data/corpora/token_store.h"

namespace longreach::data {

struct TokenizeOptions {
  std::string text_key = "text", chat_template = "chatml";
  std::shared_ptr<const ChatFormat> chat;  // the tokenizer's own template; null: chat_template is meant
  std::optional<Token> bos;  // before every text and prompt that does not begin so; templates write their own
  int gzip_level = 0;
  size_t piece_bytes = size_t{32} << 20;  // a document that is longer is encoded in pieces; ids stay the same
  bool progress = false;  // a line on stderr that renews itself; plain lines when stderr is not a terminal
};

// Writes `output`, going on where an earlier call for the same inputs was cut off. Special tokens in text are
// recognised; each document ends with the tokenizer's eos when it has one. Throws DataError that names the
// file (and line) at fault, or the inputs when they hold no text at all.
void tokenize_files(const std::vector<std::string>& inputs, const Tokenizer& tokenizer,
                    const TokenizeOptions& options, const std::string& output);

// The store of `input` under `cache_folder`, made when it is not there yet. Its name depends on path, size
// and time of change of every file, on the tokenizer and on the options. When the text is gone, the newest
// store made of it under the same options serves, and standard error says so.
std::shared_ptr<TokenStore> cached_store(const std::string& input, const Tokenizer& tokenizer,
                                         const TokenizeOptions& options, const std::string& cache_folder);

// True for .h5, .hdf5 and .bin: files that hold tokens already.
bool holds_tokens(const std::string& path);

}  // namespace longreach::data
