// Choosing a tokenizer by what the user named.
#include "data/tokenizers/tokenizer.h"

#include <filesystem>

#include "core/error.h"
#include "data/tokenizers/byte_tokenizer.h"
#include "data/tokenizers/sentencepiece.h"
#include "data/tokenizers/tokenizer_json.h"

namespace longreach::data {
namespace {

constexpr const char* kSupported =
    "supported are `bytes`, a folder with tokenizer.json or tokenizer.model, a tokenizer.json, a "
    "SentencePiece .model";

}  // namespace

std::unique_ptr<Tokenizer> load_tokenizer(const std::string& spec) {
  namespace fs = std::filesystem;
  if (spec == "bytes") return std::make_unique<ByteTokenizer>();
  std::error_code error;
  const fs::path path(spec);
  const fs::file_status status = fs::status(path, error);
  check<DataError>(fs::exists(status), one_line(spec, 500), ": no such file or folder; ", kSupported);
  if (fs::is_directory(status)) {
    if (fs::exists(path / "tokenizer.json", error)) return load_tokenizer_json(path / "tokenizer.json");
    if (fs::exists(path / "tokenizer.model", error)) return load_sentencepiece(path / "tokenizer.model");
    throw DataError(text(one_line(spec, 500), ": no tokenizer in this folder; ", kSupported));
  }
  if (path.extension() == ".json") return load_tokenizer_json(spec);
  check<DataError>(path.extension() == ".model", one_line(spec, 500), ": not a tokenizer; ", kSupported);
  return load_sentencepiece(spec);
}

}  // namespace longreach::data
