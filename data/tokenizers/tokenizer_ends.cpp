#include "data/tokenizers/tokenizer_ends.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "data/common/json_file.h"

namespace longreach::data {
namespace {

using nlohmann::json;

constexpr const char *kFile = "tokenizer.json", *kConfig = "tokenizer_config.json";

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

std::optional<Token> bos_before_texts(const Tokenizer& tokenizer,
                                      const std::map<std::string, std::string>& files,
                                      const std::string& where) {
  if (tokenizer.name() == "bytes" || !tokenizer.bos()) return std::nullopt;
  const auto object = [&](const char* name) {
    const auto found = files.find(name);
    return found == files.end() ? json::object() : json::parse(found->second);
  };
  try {
    return tokenizer_ends(object(kConfig), object(kFile)).bos ? tokenizer.bos() : std::nullopt;
  } catch (const json::exception& error) {
    throw DataError(one_line(text(where, ": the tokenizer's files: ", error.what())));
  }
}

std::optional<Token> bos_before_texts(const Tokenizer& tokenizer, const std::string& spec) {
  namespace fs = std::filesystem;
  const fs::path path(spec);
  const bool is_folder = fs::is_directory(path);
  const fs::path folder = is_folder ? path : path.parent_path();
  std::map<std::string, std::string> files;
  const auto take = [&](const char* name, const fs::path& file) {
    if (file.extension() == ".json" && fs::exists(file)) files[name] = read_whole_file(file.string());
  };
  take(kConfig, folder / kConfig);
  take(kFile, is_folder ? path / kFile : path);
  return bos_before_texts(tokenizer, files, folder.string());
}

}  // namespace longreach::data
