#include "checkpoints/formats/gguf/gguf_tokenizer.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <unordered_map>
#include <unordered_set>

#include "checkpoints/formats/gguf/gguf_pre_tokenizer.h"
#include "core/error.h"
#include "data/tokenizers/sentencepiece_model.h"

namespace longreach {
namespace {

using nlohmann::json;
using Type = data::SentencePiece::Type;  // a GGUF file has the same numbers

constexpr std::string_view kGgml = "tokenizer.ggml.", kTemplate = "tokenizer.chat_template";

std::string ggml(std::string_view key) { return text(kGgml, key); }

struct Vocabulary {
  std::vector<std::string> tokens;  // by id
  std::vector<Type> types;
};

Vocabulary read_vocabulary(const GgufKeys& keys, int64_t vocab_size) {
  Vocabulary vocabulary;
  std::unordered_set<std::string_view> seen;
  for (const std::string_view token : keys.texts(ggml("tokens"))) {
    if (!token.empty() && !seen.insert(token).second)
      throw CheckpointError(
          one_line(text(keys.path(), ": `", ggml("tokens"), "`: the token `", token, "` comes twice")));
    vocabulary.tokens.emplace_back(token);
  }
  const size_t count = vocabulary.tokens.size();
  if (count == 0 || count > static_cast<size_t>(vocab_size))
    keys.fail(ggml("tokens"), text("1 to ", vocab_size, " tokens, as the embedding has rows"));
  vocabulary.types.assign(count, Type::normal);
  if (keys.has(ggml("token_type"))) {
    const std::vector<int64_t> types = keys.integers(ggml("token_type"));
    const bool known =
        std::all_of(types.begin(), types.end(), [](int64_t type) { return type >= 1 && type <= 6; });
    if (types.size() != count || !known)
      keys.fail(ggml("token_type"), text(count, " numbers from 1 to 6, as there are tokens"));
    for (size_t id = 0; id < count; ++id) vocabulary.types[id] = static_cast<Type>(types[id]);
  }
  for (size_t id = 0; id < count; ++id)
    if (vocabulary.tokens[id].empty()) {
      vocabulary.tokens[id] = text("[EMPTY_", id, "]");
      vocabulary.types[id] = Type::unused;
    }
  return vocabulary;
}

std::optional<int64_t> special_id(const GgufKeys& keys, std::string_view name, size_t tokens) {
  const std::string key = ggml(text(name, "_token_id"));
  if (!keys.has(key)) return std::nullopt;
  return keys.integer(key, 0, static_cast<int64_t>(tokens) - 1);
}

bool flag(const GgufKeys& keys, std::string_view key, bool absent) {
  return keys.has(ggml(key)) ? keys.boolean(ggml(key)) : absent;
}

void add_templates(const GgufKeys& keys, json& config) {
  json named = json::array();
  for (const auto& [key, value] : keys.values()) {
    if (!key.starts_with(text(kTemplate, "."))) continue;
    named.push_back({{"name", key.substr(kTemplate.size() + 1)}, {"template", keys.text(key)}});
  }
  if (!keys.has(kTemplate)) {
    if (!named.empty()) config["chat_template"] = named;
    return;
  }
  config["chat_template"] = keys.text(kTemplate);
  if (named.empty()) return;
  json all = json::array();
  all.push_back(json::object({{"name", "default"}, {"template", keys.text(kTemplate)}}));
  for (json& one : named) all.push_back(std::move(one));
  config["chat_template"] = all;
}

// Files that say how a text begins and ends.
void add_ends(const GgufKeys& keys, const Vocabulary& vocabulary, bool add_bos, json config,
              std::map<std::string, std::string>& files) {
  json generation = json::object();
  const auto add = [&](std::string_view theirs, const std::string& ours) {
    const auto id = special_id(keys, theirs, vocabulary.tokens.size());
    if (!id) return;
    config[ours + "_token"] = vocabulary.tokens[static_cast<size_t>(*id)];
    if (ours != "unk") generation[ours + "_token_id"] = *id;
  };
  add("bos", "bos");
  add("eos", "eos");
  add("padding", "pad");
  add("unknown", "unk");
  if (const auto turn = special_id(keys, "eot", vocabulary.tokens.size());
      turn && generation.contains("eos_token_id") && generation["eos_token_id"] != *turn)
    generation["eos_token_id"] = json::array({generation["eos_token_id"], *turn});
  config["add_bos_token"] = add_bos;
  config["add_eos_token"] = flag(keys, "add_eos_token", false);
  config["clean_up_tokenization_spaces"] = false;
  add_templates(keys, config);
  files["tokenizer_config.json"] = config.dump(2) + "\n";
  files["generation_config.json"] = generation.dump(2) + "\n";
}

const GgufPreTokenizer& pre_tokenizer_of(const GgufKeys& keys) {
  const std::string name = keys.has(ggml("pre")) ? keys.text(ggml("pre")) : "default";
  std::vector<std::string> names;
  for (const GgufPreTokenizer& known : gguf_pre_tokenizers()) {
    if (std::find(known.names.begin(), known.names.end(), name) != known.names.end()) return known;
    names.insert(names.end(), known.names.begin(), known.names.end());
  }
  keys.fail(ggml("pre"), text("one of ", join(names), did_you_mean(name, names)));
}

// [["a", "b"], ...]; `made` is given every token that a merge names.
json read_merges(const GgufKeys& keys, std::unordered_set<std::string>& made) {
  json merges = json::array();
  const std::string key = ggml("merges");
  for (const std::string_view merge : keys.texts(key)) {
    const size_t space = merge.find(' ', 1);
    if (space == std::string_view::npos || space + 1 == merge.size())
      throw CheckpointError(one_line(text(keys.path(), ": `", key, "`: found `", merge,
                                          "`, expected two tokens with a space between them")));
    const std::string left(merge.substr(0, space)), right(merge.substr(space + 1));
    merges.push_back(json::array({left, right}));
    made.insert({left, right, left + right});
  }
  return merges;
}

// What Hugging Face's tokenizers put before and behind a text.
json post_processor(const GgufKeys& keys, const Vocabulary& vocabulary, bool add_bos) {
  const auto bos = special_id(keys, "bos", vocabulary.tokens.size());
  if (!add_bos || !bos) return nullptr;
  const std::string& token = vocabulary.tokens[static_cast<size_t>(*bos)];
  const auto special = [&](int type) {
    return json::object({{"SpecialToken", json::object({{"id", token}, {"type_id", type}})}});
  };
  const auto sequence = [](const char* id, int type) {
    return json::object({{"Sequence", json::object({{"id", id}, {"type_id", type}})}});
  };
  const json known{{"id", token}, {"ids", json::array({*bos})}, {"tokens", json::array({token})}};
  return json::object({{"type", "TemplateProcessing"},
                       {"single", json::array({special(0), sequence("A", 0)})},
                       {"pair", json::array({special(0), sequence("A", 0), special(1), sequence("B", 1)})},
                       {"special_tokens", json::object({{token, known}})}});
}

std::map<std::string, std::string> byte_level_files(const GgufKeys& keys, const Vocabulary& vocabulary) {
  const GgufPreTokenizer& pre = pre_tokenizer_of(keys);
  std::unordered_set<std::string> made;
  json merges = read_merges(keys, made), vocab = json::object(), added = json::array();
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    const std::string& token = vocabulary.tokens[id];
    const Type type = vocabulary.types[id];
    const bool apart = type == Type::control || type == Type::user_defined;
    if (apart)
      added.push_back({{"id", id},
                       {"content", token},
                       {"single_word", false},
                       {"lstrip", false},
                       {"rstrip", false},
                       {"normalized", false},
                       {"special", type == Type::control}});
    if ((!apart && type != Type::unused) || made.count(token) > 0) vocab[token] = id;
  }
  const bool add_bos = flag(keys, "add_bos_token", pre.add_bos);
  json root{{"version", "1.0"}, {"truncation", nullptr}, {"padding", nullptr}};
  root["added_tokens"] = std::move(added);
  root["normalizer"] = pre.nfc ? json::object({{"type", "NFC"}}) : json();
  root["pre_tokenizer"] = pre.pre_tokenizer;
  root["post_processor"] = post_processor(keys, vocabulary, add_bos);
  root["decoder"] = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}};
  root["model"] = {{"type", "BPE"},
                   {"dropout", nullptr},
                   {"unk_token", nullptr},
                   {"continuing_subword_prefix", nullptr},
                   {"end_of_word_suffix", nullptr},
                   {"fuse_unk", false},
                   {"byte_fallback", false},
                   {"ignore_merges", pre.ignore_merges},
                   {"vocab", std::move(vocab)},
                   {"merges", std::move(merges)}};
  std::map<std::string, std::string> files{{"tokenizer.json", root.dump()}};
  add_ends(keys, vocabulary, add_bos, json::object({{"tokenizer_class", "PreTrainedTokenizerFast"}}), files);
  return files;
}

std::map<std::string, std::string> sentencepiece_files(const GgufKeys& keys, const Vocabulary& vocabulary) {
  const size_t count = vocabulary.tokens.size();
  const std::vector<float> scores = keys.reals(ggml("scores"));
  const bool finite = std::all_of(scores.begin(), scores.end(), [](float x) { return std::isfinite(x); });
  if (scores.size() != count || !finite)
    keys.fail(ggml("scores"), text(count, " finite numbers, as there are tokens"));
  data::SentencePieceModel model{.kind = data::SentencePieceModel::Kind::bpe};
  for (size_t id = 0; id < count; ++id) {
    model.pieces.push_back({vocabulary.tokens[id], scores[id], vocabulary.types[id]});
    model.byte_fallback = model.byte_fallback || vocabulary.types[id] == Type::byte;
  }
  if (const auto bos = special_id(keys, "bos", count)) model.bos_piece = vocabulary.tokens[*bos];
  if (const auto eos = special_id(keys, "eos", count)) model.eos_piece = vocabulary.tokens[*eos];
  model.add_dummy_prefix = flag(keys, "add_space_prefix", true);
  model.remove_extra_whitespaces = flag(keys, "remove_extra_whitespaces", false);
  std::map<std::string, std::string> files{{"tokenizer.model", write_sentencepiece_model(model)}};
  add_ends(keys, vocabulary, flag(keys, "add_bos_token", true),
           json::object({{"tokenizer_class", "LlamaTokenizer"}}), files);
  return files;
}

}  // namespace

bool is_tokenizer_key(const std::string& key) {
  static const std::set<std::string> known{
      "tokenizer.ggml.model",         "tokenizer.ggml.pre",
      "tokenizer.ggml.tokens",        "tokenizer.ggml.token_type",
      "tokenizer.ggml.scores",        "tokenizer.ggml.merges",
      "tokenizer.ggml.add_bos_token", "tokenizer.ggml.add_eos_token",
      "tokenizer.ggml.add_sep_token", "tokenizer.ggml.add_space_prefix",
      "tokenizer.chat_template",      "tokenizer.ggml.remove_extra_whitespaces",
      "tokenizer.chat_templates",     "tokenizer.huggingface.json"};
  return known.count(key) > 0 || key.starts_with(text(kTemplate, ".")) ||
         (key.starts_with(kGgml) && key.ends_with("_token_id"));
}

std::map<std::string, std::string> gguf_tokenizer(const GgufKeys& keys, int64_t vocab_size,
                                                  const std::set<std::string>& ignored) {
  const std::string key = ggml("model");
  if (ignored.count(key) > 0 || !keys.has(key)) return {};
  const std::string kind = keys.text(key);
  if (kind == "none" || kind == "no_vocab") return {};
  if (kind != "gpt2" && kind != "llama") keys.fail(key, "gpt2, llama or none");
  const Vocabulary vocabulary = read_vocabulary(keys, vocab_size);
  return kind == "gpt2" ? byte_level_files(keys, vocabulary) : sentencepiece_files(keys, vocabulary);
}

}  // namespace longreach
