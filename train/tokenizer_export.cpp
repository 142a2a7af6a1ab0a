#include "train/tokenizer_export.h"

#include <array>
#include <nlohmann/json.hpp>

#include "data/corpora/chat.h"
#include "data/tokenizers/byte_alphabet.h"
#include "data/tokenizers/tokenizer_ends.h"

namespace longreach {
namespace {

using Json = nlohmann::ordered_json;

// What render_chat of data/corpora/chat.h writes, in the language of chat templates.
constexpr const char* kChatml =
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + "
    "'<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% "
    "endif %}";
constexpr const char* kLlama3 =
    "{{ '<|begin_of_text|>' }}{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + "
    "'<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}";

// The bytes as the 256 tokens of a byte-level vocabulary without merges, and the end of a document.
Json byte_level(const std::string& end, int64_t end_id) {
  Json vocabulary = Json::object();
  for (int byte = 0; byte < 256; ++byte)
    vocabulary[data::to_byte_alphabet(std::string(1, static_cast<char>(byte)))] = byte;
  const Json pieces{
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", false}};
  Json json;
  json["version"] = "1.0";
  json["truncation"] = nullptr;
  json["padding"] = nullptr;
  json["added_tokens"] = Json::array({{{"id", end_id},
                                       {"content", end},
                                       {"single_word", false},
                                       {"lstrip", false},
                                       {"rstrip", false},
                                       {"normalized", false},
                                       {"special", true}}});
  json["normalizer"] = nullptr;
  json["pre_tokenizer"] = pieces;
  json["post_processor"] = nullptr;
  json["decoder"] = pieces;
  json["model"] = {{"type", "BPE"},
                   {"dropout", nullptr},
                   {"unk_token", nullptr},
                   {"continuing_subword_prefix", nullptr},
                   {"end_of_word_suffix", nullptr},
                   {"fuse_unk", false},
                   {"byte_fallback", false},
                   {"vocab", vocabulary},
                   {"merges", Json::array()}};
  return json;
}

// A special token as it is written, where it is.
Json text_of(const data::Tokenizer& tokenizer, const std::optional<data::Token>& token) {
  if (!token) return {};
  const std::string written = tokenizer.decode(std::array{*token});
  return tokenizer.id_of(written) == token ? Json(written) : Json();
}

constexpr std::string_view kKept = "tokenizer/";
constexpr const char *kFile = "tokenizer.json", *kConfig = "tokenizer_config.json";

// The tokenizer's, by name.
std::map<std::string, std::string> kept_files(const SavedModel& saved) {
  std::map<std::string, std::string> files;
  for (const auto& [name, contents] : saved.texts)
    if (name.starts_with(kKept)) files[name.substr(kKept.size())] = contents;
  return files;
}

}  // namespace

bool begins_with_bos(const SavedModel& saved) {
  return saved.tokenizer && data::bos_before_texts(*saved.tokenizer, kept_files(saved), saved.path);
}

std::map<std::string, std::string> tokenizer_export(const SavedModel& saved) {
  constexpr const char* kTemplate = "chat_template";
  if (!saved.tokenizer) return {};
  std::map<std::string, std::string> files = kept_files(saved);
  const data::Tokenizer& tokenizer = *saved.tokenizer;
  if (tokenizer.name() == "bytes")
    files[kFile] =
        byte_level(tokenizer.decode(std::array{*tokenizer.eos()}), *tokenizer.eos()).dump(1) + "\n";
  if (!files.contains(kFile)) return files;  // SentencePiece's file says all there is
  Json config{{"tokenizer_class", "PreTrainedTokenizerFast"},
              {"bos_token", text_of(tokenizer, tokenizer.bos())},
              {"eos_token", text_of(tokenizer, tokenizer.eos())},
              {"clean_up_tokenization_spaces", false},
              {"model_max_length", saved.config.model.max_position_embeddings}};
  if (files.contains(kConfig)) config = Json::parse(files[kConfig]);
  const std::string& form = saved.config.data.chat_template;
  const bool own = config.contains(kTemplate) || files.contains("chat_template.jinja");
  if (!own && tokenizer.id_of(data::end_of_turn(form)))
    config[kTemplate] = form == "llama3" ? kLlama3 : kChatml;
  files[kConfig] = config.dump(2) + "\n";
  return files;
}

}  // namespace longreach
