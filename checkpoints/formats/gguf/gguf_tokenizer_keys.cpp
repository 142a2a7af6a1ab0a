#include "checkpoints/formats/gguf/gguf_tokenizer_keys.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <unordered_map>

#include "checkpoints/formats/gguf/gguf_pre_tokenizer.h"
#include "core/error.h"
#include "data/tokenizers/sentencepiece_model.h"
#include "data/tokenizers/tokenizer_ends.h"

namespace longreach {
namespace {

using nlohmann::json;
using Type = data::SentencePiece::Type;  // a GGUF file has the same numbers
using Files = std::map<std::string, std::string>;

constexpr const char* kJson = "tokenizer.json";
constexpr const char* kModel = "tokenizer.model";
// What the converters of the format give tokens that no score was learned for.
constexpr float kNoScore = -1000.0F;

// Tokens by id; ids without one are empty.
struct Vocabulary {
  explicit Vocabulary(int64_t vocab_size) : limit(vocab_size) {}

  void add(const std::string& file, int64_t id, const std::string& token, Type type, float score = kNoScore) {
    check<ConfigError>(id >= 0 && id < limit, file, ": the token `", one_line(token, 100), "` has the id ",
                       id, ", the embedding has ", limit, " rows");
    const auto at = static_cast<size_t>(id);
    if (at >= tokens.size()) resize(at + 1);
    check<ConfigError>(tokens[at].empty() || tokens[at] == token, file, ": `", one_line(token, 100),
                       "` and `", one_line(tokens[at], 100), "` have the id ", id);
    if (tokens[at].empty()) scores[at] = score;
    tokens[at] = token;
    types[at] = static_cast<int32_t>(type);
    ids[token] = id;
  }
  void fill() {
    resize(static_cast<size_t>(limit));
    for (size_t id = 0; id < tokens.size(); ++id)
      if (tokens[id].empty()) tokens[id] = text("[PAD", id, "]");
  }

  int64_t limit;
  std::vector<std::string> tokens;
  std::vector<int32_t> types;
  std::vector<float> scores;
  std::unordered_map<std::string, int64_t> ids;

 private:
  void resize(size_t size) {
    tokens.resize(size);
    types.resize(size, static_cast<int32_t>(Type::unused));
    scores.resize(size, kNoScore);
  }
};

// The JSON object of a file; an empty one where there is no such file.
json object_of(const Files& files, const char* name) {
  const auto found = files.find(name);
  if (found == files.end()) return json::object();
  json root;
  try {
    root = json::parse(found->second);
  } catch (const json::exception&) {
    throw ConfigError(text(name, ": is not JSON"));
  }
  check<ConfigError>(root.is_object(), name, ": expected a JSON object");
  return root;
}

void add_added_tokens(const json& root, Vocabulary& vocabulary) {
  for (const json& token : root.value("added_tokens", json::array())) {
    const auto content = token.at("content").get<std::string>();
    for (const char* rule : {"lstrip", "rstrip", "single_word"})
      check<ConfigError>(!token.value(rule, false), kJson, ": added_tokens: `", one_line(content, 100),
                         "`: ", rule, " = true, for which GGUF has no word");
    vocabulary.add(kJson, token.at("id").get<int64_t>(), content,
                   token.value("special", false) ? Type::control : Type::user_defined);
  }
}

std::vector<std::string> merges_of(const json& model) {
  std::vector<std::string> merges;
  for (const json& merge : model.at("merges"))
    merges.push_back(merge.is_string()
                         ? merge.get<std::string>()
                         : merge.at(0).get<std::string>() + " " + merge.at(1).get<std::string>());
  return merges;
}

bool is_byte_level(const json& stage) {
  if (!stage.is_object()) return false;
  if (stage.value("type", "") == "ByteLevel") return true;
  const json members = stage.value("pretokenizers", json::array());
  return std::any_of(members.begin(), members.end(), [](const json& one) { return is_byte_level(one); });
}

void add_byte_level(const json& root, Vocabulary& vocabulary, GgufKeyWriter& keys) {
  const GgufPreTokenizer& pre = gguf_pre_tokenizer_of(root, kJson);
  const json& model = root.at("model");
  const std::string type = model.value("type", "BPE");
  check<ConfigError>(type == "BPE" && !model.value("byte_fallback", false), kJson, ": model: found ",
                     one_line(type, 60),
                     " with or without bytes for other characters, GGUF has byte-level BPE");
  for (const auto& [token, id] : model.at("vocab").items())
    vocabulary.add(kJson, id.get<int64_t>(), token, Type::normal);
  add_added_tokens(root, vocabulary);
  keys.add_text("tokenizer.ggml.model", "gpt2");
  keys.add_text("tokenizer.ggml.pre", pre.names.front());
  vocabulary.fill();
  keys.add_texts("tokenizer.ggml.tokens", vocabulary.tokens);
  keys.add_integers("tokenizer.ggml.token_type", vocabulary.types);
  keys.add_texts("tokenizer.ggml.merges", merges_of(model));
}

void add_sentencepiece(const Files& files, const json& root, Vocabulary& vocabulary, GgufKeyWriter& keys) {
  data::SentencePieceModel model;
  try {
    model = data::parse_sentencepiece_model(files.at(kModel));
  } catch (const DataError& error) {
    throw ConfigError(text(kModel, ": ", error.what()));
  }
  check<ConfigError>(model.kind == data::SentencePieceModel::Kind::bpe, kModel,
                     ": is not of type bpe, the only one that this writes");
  check<ConfigError>(model.charsmap.empty() && model.denormalizer_charsmap.empty(), kModel,
                     ": has normalization rules, for which GGUF has no word");
  check<ConfigError>(
      model.escape_whitespaces && !model.treat_whitespace_as_suffix && !model.remove_extra_whitespaces,
      kModel,
      ": expected escape_whitespaces and neither treat_whitespace_as_suffix nor "
      "remove_extra_whitespaces, for which GGUF has no word");
  for (size_t id = 0; id < model.pieces.size(); ++id) {
    const data::SentencePiece& piece = model.pieces[id];
    vocabulary.add(kModel, static_cast<int64_t>(id), piece.text, piece.type, piece.score);
  }
  const std::vector<int32_t> types = vocabulary.types;
  add_added_tokens(root, vocabulary);  // those of the model again, and others behind them
  std::copy(types.begin(), types.end(), vocabulary.types.begin());
  vocabulary.fill();
  keys.add_text("tokenizer.ggml.model", "llama");
  keys.add_text("tokenizer.ggml.pre", "default");
  keys.add_texts("tokenizer.ggml.tokens", vocabulary.tokens);
  keys.add_reals("tokenizer.ggml.scores", vocabulary.scores);
  keys.add_integers("tokenizer.ggml.token_type", vocabulary.types);
  keys.add_flag("tokenizer.ggml.add_space_prefix", model.add_dummy_prefix);
  keys.add_flag("tokenizer.ggml.remove_extra_whitespaces", false);
}

// The text of a token in tokenizer_config.json: itself, or in an object.
std::optional<std::string> named_token(const json& config, const char* key) {
  const auto found = config.find(key);
  if (found == config.end() || found->is_null()) return std::nullopt;
  return found->is_object() ? found->at("content").get<std::string>() : found->get<std::string>();
}

void add_ends(const Files& files, const json& root, const Vocabulary& vocabulary, GgufKeyWriter& keys) {
  const json config = object_of(files, "tokenizer_config.json");
  const json generation = object_of(files, "generation_config.json");
  const auto add = [&](const char* ours, const char* theirs) -> std::optional<int64_t> {
    const std::optional<std::string> token = named_token(config, ours);
    if (!token) return std::nullopt;
    const auto id = vocabulary.ids.find(*token);
    check<ConfigError>(id != vocabulary.ids.end(), "tokenizer_config.json: ", ours, ": no token is `",
                       one_line(*token, 100), "`");
    keys.add_integer(theirs, static_cast<uint32_t>(id->second));
    return id->second;
  };
  add("bos_token", "tokenizer.ggml.bos_token_id");
  const auto eos = add("eos_token", "tokenizer.ggml.eos_token_id");
  add("unk_token", "tokenizer.ggml.unknown_token_id");
  add("pad_token", "tokenizer.ggml.padding_token_id");
  const json ends = generation.value("eos_token_id", json());
  for (const json& end : ends.is_array() ? ends : json::array())
    if (eos && end.is_number_integer() && end != *eos && end >= 0 && end < vocabulary.limit) {
      keys.add_integer("tokenizer.ggml.eot_token_id", end.get<uint32_t>());
      break;
    }
  const data::TokenizerEnds put = data::tokenizer_ends(config, root);
  keys.add_flag("tokenizer.ggml.add_bos_token", put.bos);
  keys.add_flag("tokenizer.ggml.add_eos_token", put.eos);
}

void add_templates(const Files& files, GgufKeyWriter& keys) {
  const std::string key = "tokenizer.chat_template";
  if (const auto file = files.find("chat_template.jinja"); file != files.end())
    return keys.add_text(key, file->second);
  const json chat = object_of(files, "tokenizer_config.json").value("chat_template", json());
  if (chat.is_string()) return keys.add_text(key, chat.get<std::string>());
  for (const json& one : chat.is_array() ? chat : json::array()) {
    const auto name = one.at("name").get<std::string>();
    keys.add_text(name == "default" ? key : text(key, ".", name), one.at("template").get<std::string>());
  }
}

}  // namespace

void add_tokenizer_keys(const Files& files, int64_t vocab_size, GgufKeyWriter& keys) {
  const json root = object_of(files, kJson);
  const bool byte_level = is_byte_level(root.value("pre_tokenizer", json())), model = files.count(kModel) > 0;
  if (root.empty() && !model) return keys.add_text("tokenizer.ggml.model", "none");
  try {
    Vocabulary vocabulary(vocab_size);
    if (byte_level || !model)
      add_byte_level(root, vocabulary, keys);
    else
      add_sentencepiece(files, root, vocabulary, keys);
    add_ends(files, root, vocabulary, keys);
    add_templates(files, keys);
  } catch (const json::exception& error) {
    throw ConfigError(
        one_line(text("the tokenizer's files: a value is absent or of the wrong type (", error.what(), ")")));
  }
}

}  // namespace longreach
