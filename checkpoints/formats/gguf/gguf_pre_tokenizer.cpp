#include "checkpoints/formats/gguf/gguf_pre_tokenizer.h"

#include "core/error.h"

namespace longreach {
namespace {

using nlohmann::json;

// English contractions, in two spellings that mean the same.
constexpr const char* kContractions = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
constexpr const char* kContractionsSpelled = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])";

json byte_level(bool use_regex) {
  return {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", use_regex}};
}

json split(const std::string& regex) {
  return {{"type", "Split"}, {"pattern", {{"Regex", regex}}}, {"behavior", "Isolated"}, {"invert", false}};
}

json sequence(const std::vector<json>& stages) { return {{"type", "Sequence"}, {"pretokenizers", stages}}; }

// Llama 3's words, with up to so many digits of a number in one.
json llama3_words(const std::string& digits) {
  return sequence({split(kContractions + (R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N})" + digits) +
                         R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"),
                   byte_level(false)});
}

json digits_apart() {
  return sequence({json::object({{"type", "Digits"}, {"individual_digits", true}}), byte_level(true)});
}

json default_words() {
  return sequence({split(R"([\p{P}\$\+<=>\^~\|]+)"),
                   split(R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S))"),
                   split(R"(\p{N}+)"), split("[0-9][0-9][0-9]"), byte_level(false)});
}

// One line a stage, in which defaults are written out; what has no such line is its JSON.
void describe(const json& stage, std::vector<std::string>& lines) {
  const auto type = stage.is_object() ? stage.value("type", "") : "";
  if (type == "Sequence" && stage.contains("pretokenizers") && stage["pretokenizers"].is_array()) {
    for (const json& member : stage["pretokenizers"]) {
      check<ConfigError>(!member.is_object() || member.value("type", "") != "Sequence",
                         "pre_tokenizer: a Sequence in a Sequence");
      describe(member, lines);
    }
  } else if (type == "ByteLevel") {
    lines.push_back(
        text("ByteLevel ", stage.value("add_prefix_space", true), stage.value("use_regex", true)));
  } else if (type == "Digits") {
    lines.push_back(text("Digits ", stage.value("individual_digits", false)));
  } else if (type == "Split" && stage.contains("pattern") && stage["pattern"].is_object()) {
    std::string regex = stage["pattern"].value("Regex", "");
    if (regex.starts_with(kContractionsSpelled))
      regex = kContractions + regex.substr(std::string_view(kContractionsSpelled).size());
    lines.push_back(text("Split ", stage.value("behavior", ""), stage.value("invert", false), regex));
  } else {
    lines.push_back(type.empty() ? stage.dump() : type);
  }
}

std::vector<std::string> described(const json& pre_tokenizer) {
  std::vector<std::string> lines;
  describe(pre_tokenizer, lines);
  return lines;
}

// Whether the normalizer is NFC alone; other ones than that and none are refused.
bool is_nfc(const json& tokenizer) {
  const auto found = tokenizer.find("normalizer");
  if (found == tokenizer.end() || found->is_null()) return false;
  json one = *found;
  const auto list = one.is_object() ? one.find("normalizers") : one.end();
  if (list != one.end() && list->is_array() && list->size() <= 1) {
    if (list->empty()) return false;
    one = json(list->front());
  }
  const std::string type = one.is_object() ? one.value("type", "") : "";
  check<ConfigError>(type == "NFC", "normalizer: found ", one_line(type, 60), ", GGUF has NFC and none");
  return true;
}

}  // namespace

const std::vector<GgufPreTokenizer>& gguf_pre_tokenizers() {
  static const std::vector<GgufPreTokenizer> all{
      {.names = {"gpt-2", "phi-2", "mpt", "olmo"}, .pre_tokenizer = byte_level(true)},
      {.names = {"smollm", "starcoder", "refact", "codeshell"}, .pre_tokenizer = digits_apart()},
      {.names = {"llama-bpe", "llama3", "llama-v3"},
       .pre_tokenizer = llama3_words("{1,3}"),
       .ignore_merges = true,
       .add_bos = true},
      {.names = {"dbrx", "smaug-bpe"}, .pre_tokenizer = llama3_words("{1,3}")},
      {.names = {"qwen2"}, .pre_tokenizer = llama3_words(""), .nfc = true},
      {.names = {"stablelm2", "deepseek-r1-qwen"}, .pre_tokenizer = llama3_words("")},
      {.names = {"default"}, .pre_tokenizer = default_words()}};
  return all;
}

const GgufPreTokenizer& gguf_pre_tokenizer_of(const json& tokenizer, const std::string& file) {
  std::string why;
  try {
    const bool nfc = is_nfc(tokenizer);
    const auto words = tokenizer.find("pre_tokenizer");
    const std::vector<std::string> stages = described(words == tokenizer.end() ? json() : *words);
    const bool ignore_merges = tokenizer.at("model").value("ignore_merges", false);
    for (const GgufPreTokenizer& known : gguf_pre_tokenizers())
      if (known.nfc == nfc && known.ignore_merges == ignore_merges &&
          described(known.pre_tokenizer) == stages)
        return known;
    why = text("pre_tokenizer: no name of GGUF (tokenizer.ggml.pre) stands for [", join(stages, "; "),
               "] with ", nfc ? "NFC" : "no normalizer",
               " and ignore_merges = ", ignore_merges ? "true" : "false");
  } catch (const json::exception&) {
    why = "pre_tokenizer: holds a value of the wrong type";
  } catch (const ConfigError& error) {
    why = error.what();
  }
  throw ConfigError(one_line(text(file, ": ", why)));
}

}  // namespace longreach
