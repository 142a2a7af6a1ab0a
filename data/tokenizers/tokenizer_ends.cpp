#include "data/tokenizers/tokenizer_ends.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "data/common/json_file.h"

namespace longreach::data {
namespace {

using nlohmann::json;

// Whether a post_processor puts a token before (or behind) every text.
bool adds_token(const json& processor, bool before) {
  if (!processor.is_object()) return false;
  for (const json& member : processor.value("processors", json::array()))
    if (adds_token(member, before)) return true;
  const json single = processor.value("single", json::array());
  return !single.empty() && (before ? single.front() : single.back()).contains("SpecialToken");
}

}  // namespace

TokenizerEnds tokenizer_ends(const json& tokenizer_config, const json& tokenizer) {
  const json processor = tokenizer.value("post_processor", json());
  return {.bos = tokenizer_config.value("add_bos_token", tokenizer.empty() || adds_token(processor, true)),
          .eos = tokenizer_config.value("add_eos_token", adds_token(processor, false))};
}

std::optional<Token> bos_before_texts(const Tokenizer& tokenizer, const std::string& spec) {
  namespace fs = std::filesystem;
  if (spec == "bytes" || !tokenizer.bos()) return std::nullopt;
  const fs::path path(spec);
  const bool is_folder = fs::is_directory(path);
  const fs::path folder = is_folder ? path : path.parent_path(),
                 file = is_folder ? path / "tokenizer.json" : path;
  const auto object = [](const fs::path& name) {
    const bool there = name.extension() == ".json" && fs::exists(name);
    return there ? json::parse(read_whole_file(name.string())) : json::object();
  };
  try {
    return tokenizer_ends(object(folder / "tokenizer_config.json"), object(file)).bos ? tokenizer.bos()
                                                                                      : std::nullopt;
  } catch (const json::exception& error) {
    throw DataError(one_line(text(folder.string(), ": the tokenizer's files: ", error.what())));
  }
}

}  // namespace longreach::data
