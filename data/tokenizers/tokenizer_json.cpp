// tokenizer.json -> TokenizerPipeline. Everything that would change ids and is not understood is an error.
#include "data/tokenizers/tokenizer_json.h"

#include <filesystem>

#include "core/error.h"
#include "data/common/fingerprint.h"
#include "data/common/json_file.h"
#include "data/tokenizers/byte_alphabet.h"
#include "data/tokenizers/pipeline_tokenizer.h"
#include "data/tokenizers/space_mark.h"

namespace longreach::data {
namespace {

using nlohmann::json;

std::string type_of(const json& value, const char* where) {
  check<DataError>(value.is_object(), where, " must be an object, found ", value.type_name());
  std::string type = get_string(value, "type", "", where);
  check<DataError>(!type.empty(), where, " has no `type`");
  return type;
}

[[noreturn]] void unknown_kind(const char* where, const std::string& kind, const char* supported) {
  throw DataError(text(where, " is of kind `", one_line(kind, 60), "`; supported are ", supported));
}

SplitBehavior parse_behavior(const std::string& name) {
  if (name == "Removed") return SplitBehavior::removed;
  if (name == "Isolated") return SplitBehavior::isolated;
  if (name == "MergedWithPrevious") return SplitBehavior::merged_with_previous;
  if (name == "MergedWithNext") return SplitBehavior::merged_with_next;
  if (name == "Contiguous") return SplitBehavior::contiguous;
  unknown_kind("pre_tokenizer.behavior", name,
               "Removed, Isolated, MergedWithPrevious, MergedWithNext and Contiguous");
}

std::optional<UnicodeForm> unicode_form(const std::string& type) {
  if (type == "NFC") return UnicodeForm::nfc;
  if (type == "NFD") return UnicodeForm::nfd;
  if (type == "NFKC") return UnicodeForm::nfkc;
  if (type == "NFKD") return UnicodeForm::nfkd;
  return std::nullopt;
}

// {"Regex": ...} or {"String": ...}: exactly one of the two is not empty.
struct Pattern {
  std::string regex, literal;
};
Pattern parse_pattern(const json& owner, const char* where) {
  const json& pattern = get_object(owner, "pattern", where);
  Pattern result{get_string(pattern, "Regex", "", where), get_string(pattern, "String", "", where)};
  check<DataError>(result.regex.empty() != result.literal.empty(), where,
                   ".pattern must hold one text, `Regex` or `String`");
  return result;
}

class Reader {
 public:
  explicit Reader(const json& root) : root_(root) {}

  TokenizerPipeline read() {
    const json& model = get_object(root_, "model", "the file");
    read_pre_tokenizer(section("pre_tokenizer"));
    read_normalizer(section("normalizer"));
    read_model(model);
    read_added_tokens();
    read_decoder(section("decoder"));
    if (parts_.bpe.byte_level) parts_.decode = {};
    check_bytes();
    std::string rules;
    for (const char* key : {"model", "pre_tokenizer", "normalizer", "decoder", "added_tokens"})
      rules += text(key, ":", section(key).dump(), "\n");
    parts_.fingerprint = hash_hex(rules);
    return std::move(parts_);
  }

 private:
  const json& section(const char* key) const {
    static const json null;
    const auto found = root_.find(key);
    return found == root_.end() ? null : *found;
  }

  void read_model(const json& model) {
    const std::string type = get_string(model, "type", model.contains("merges") ? "BPE" : "?", "model");
    if (type != "BPE") unknown_kind("model", type, "BPE");
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"})
      check<DataError>(get_string(model, key, "", "model").empty(), "model.", key, " is not supported");
    const auto dropout = model.find("dropout");
    check<DataError>(dropout == model.end() || dropout->is_null() || *dropout == 0.0,
                     "model.dropout is not supported");
    parts_.bpe.byte_level = byte_level_;
    parts_.bpe.byte_fallback = get_bool(model, "byte_fallback", false, "model");
    parts_.bpe.ignore_merges = get_bool(model, "ignore_merges", false, "model");
    parts_.bpe.fuse_unknown = get_bool(model, "fuse_unk", false, "model");
    const json& vocab = get_object(model, "vocab", "model");
    const json& added = section("added_tokens");
    // Ids may leave gaps, but no more than the file warrants.
    limit_ = 2 * static_cast<int64_t>(vocab.size() + (added.is_array() ? added.size() : 0)) + 65536;
    for (const auto& [token, id] : vocab.items()) {
      const bool integer =
          id.is_number_integer() && (!id.is_number_unsigned() || id.get<uint64_t>() <= INT32_MAX);
      check<DataError>(integer, "model.vocab: token `", one_line(token, 100), "` has the id ",
                       one_line(id.dump(), 60), ", allowed are 0 to ", limit_ - 1);
      parts_.vocabulary.add(token, id.get<int64_t>(), limit_);
    }
    check<DataError>(parts_.vocabulary.size() > 0, "model.vocab is empty");
    const std::string unknown = get_string(model, "unk_token", "", "model");
    if (!unknown.empty()) parts_.bpe.unknown = token_id(unknown, "model.unk_token");
    read_merges(get_array(model, "merges", "model"));
  }

  // What plain text is made of: not control characters, nor the first bytes of planes 4 to 16, which hold
  // next to nothing. SmolLM2's vocabulary has not seen some of these.
  static bool in_plain_text(int byte) {
    return byte == '\t' || byte == '\n' || byte == '\r' || (byte >= 0x20 && byte < 0xF1 && byte != 0x7F);
  }

  // A byte that UTF-8 has and the vocabulary has not is left out of every text, as Hugging Face's tokenizers
  // do.
  void check_bytes() const {
    if (!byte_level_ || parts_.bpe.unknown) return;
    std::vector<std::string> missing;
    bool plain = false;
    for (int byte = 0; byte < 0xF5; ++byte) {
      const char character = static_cast<char>(byte);
      const bool in_utf8 = byte != 0xC0 && byte != 0xC1;
      if (!in_utf8 || parts_.vocabulary.find(to_byte_alphabet({&character, 1}))) continue;
      missing.push_back(byte_token_name(static_cast<unsigned char>(byte)));
      plain = plain || in_plain_text(byte);
    }
    check<DataError>(!plain, "model.vocab has no token for ", missing.size(), " of the bytes (the first is ",
                     missing.empty() ? "" : missing[0],
                     ") and no unk_token: a byte-level tokenizer needs all of them, or text would be lost");
  }

  Token token_id(const std::string& token, const std::string& where) const {
    const std::optional<Token> id = parts_.vocabulary.find(token);
    check<DataError>(id.has_value(), where, " names the token `", one_line(token, 100),
                     "`, which is not in model.vocab");
    return *id;
  }

  void read_merges(const json& merges) {
    parts_.merges.reserve(merges.size());
    for (const json& merge : merges) {
      const std::string where = text("model.merges[", parts_.merges.size(), "]");
      std::string left, right;
      if (merge.is_string()) {
        const auto& both = merge.get_ref<const std::string&>();
        const size_t space = both.find(' ');
        check<DataError>(space != std::string::npos && both.find(' ', space + 1) == std::string::npos, where,
                         " must be two tokens with a space between them, found `", one_line(both, 100), "`");
        left = both.substr(0, space);
        right = both.substr(space + 1);
      } else {
        check<DataError>(
            merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string(), where,
            " must be \"a b\" or [\"a\", \"b\"]");
        left = merge[0].get<std::string>();
        right = merge[1].get<std::string>();
      }
      parts_.merges.push_back({token_id(left, where), token_id(right, where), token_id(left + right, where)});
    }
  }

  void read_added_tokens() {
    const json& list = section("added_tokens");
    if (list.is_null()) return;
    check<DataError>(list.is_array(), "added_tokens must be an array, found ", list.type_name());
    for (size_t i = 0; i < list.size(); ++i) {
      const std::string where = text("added_tokens[", i, "]");
      check<DataError>(list[i].is_object(), where, " must be an object, found ", list[i].type_name());
      AddedToken token;
      token.content = get_string(list[i], "content", "", where);
      const int64_t id = get_integer(list[i], "id", -1, where);
      check<DataError>(!token.content.empty(), where, " has no `content`");
      token.special = get_bool(list[i], "special", false, where);
      token.left_strip = get_bool(list[i], "lstrip", false, where);
      token.right_strip = get_bool(list[i], "rstrip", false, where);
      token.single_word = get_bool(list[i], "single_word", false, where);
      token.normalized = get_bool(list[i], "normalized", !token.special, where);
      parts_.vocabulary.add(token.content, id, limit_);
      token.id = static_cast<Token>(id);
      if (token.normalized) token.content = parts_.normalizer.apply(token.content).front();
      (token.normalized ? parts_.normalized_tokens : parts_.raw_tokens).add(std::move(token));
    }
  }

  void read_pre_tokenizer(const json& value) {
    if (value.is_null()) return;
    constexpr const char* kWhere = "pre_tokenizer";
    const std::string type = type_of(value, kWhere);
    check<DataError>(!byte_level_, "pre_tokenizer: ByteLevel must be the last of a Sequence, found ",
                     one_line(type, 60), " after it");
    if (type == "Sequence") {
      for (const json& member : get_array(value, "pretokenizers", kWhere)) read_pre_tokenizer(member);
    } else if (type == "Metaspace") {
      read_metaspace(value);
    } else {
      read_splitter(value, type);
    }
  }

  void read_splitter(const json& value, const std::string& type) {
    constexpr const char* kWhere = "pre_tokenizer";
    SplitStage stage;
    if (type == "ByteLevel") {
      byte_level_ = true;
      if (get_bool(value, "add_prefix_space", true, kWhere)) stage.prefix = " ";
      stage.whole = !get_bool(value, "use_regex", true, kWhere);
      if (!stage.whole) stage.regex.emplace(kGpt2Pattern);
    } else if (type == "Split") {
      const Pattern pattern = parse_pattern(value, kWhere);
      stage.behavior = parse_behavior(get_string(value, "behavior", "", kWhere));
      stage.invert = get_bool(value, "invert", false, kWhere);
      stage.literal = pattern.literal;
      if (pattern.literal.empty())
        stage.regex.emplace(pattern.regex);
      else
        stage.pattern = SplitStage::Pattern::literal;
    } else if (type == "Digits") {
      stage.pattern = SplitStage::Pattern::digits;
      const bool individual = get_bool(value, "individual_digits", false, kWhere);
      stage.behavior = individual ? SplitBehavior::isolated : SplitBehavior::contiguous;
    } else if (type == "Punctuation") {
      stage.pattern = SplitStage::Pattern::punctuation;
      stage.behavior = parse_behavior(get_string(value, "behavior", "Isolated", kWhere));
    } else if (type == "WhitespaceSplit") {
      stage.pattern = SplitStage::Pattern::space;
      stage.behavior = SplitBehavior::removed;
    } else {
      unknown_kind(kWhere, type,
                   "ByteLevel, Split, Digits, Punctuation, WhitespaceSplit, Metaspace and Sequence");
    }
    parts_.pre_tokenizer.add(std::move(stage));
  }

  static std::string prepend_scheme(const json& value, const char* where) {
    const std::string legacy = get_bool(value, "add_prefix_space", true, where) ? "always" : "never";
    std::string scheme = get_string(value, "prepend_scheme", legacy, where);
    if (scheme != "always" && scheme != "first" && scheme != "never")
      unknown_kind("prepend_scheme", scheme, "always, first and never");
    return scheme;
  }

  void read_metaspace(const json& value) {
    constexpr const char* kWhere = "pre_tokenizer";
    const std::string mark = get_string(value, "replacement", std::string(kSpaceMark), kWhere);
    const std::string scheme = prepend_scheme(value, kWhere);
    SplitStage stage;
    stage.pattern = SplitStage::Pattern::literal;
    stage.literal = stage.replace_space = mark;
    stage.behavior = SplitBehavior::merged_with_next;
    stage.whole = !get_bool(value, "split", true, kWhere);
    if (scheme != "never") stage.prefix = mark;
    stage.prefix_first_only = scheme == "first";
    check<DataError>(!mark.empty(), "pre_tokenizer.replacement is empty");
    parts_.pre_tokenizer.add(std::move(stage));
  }

  void read_normalizer(const json& value) {
    if (value.is_null()) return;
    constexpr const char* kWhere = "normalizer";
    const std::string type = type_of(value, kWhere);
    if (type == "Sequence") {
      for (const json& member : get_array(value, "normalizers", kWhere)) read_normalizer(member);
    } else if (type == "Prepend") {
      parts_.normalizer.add_prepend(get_string(value, "prepend", "", kWhere));
    } else if (type == "Replace") {
      const Pattern pattern = parse_pattern(value, kWhere);
      const std::string content = get_string(value, "content", "", kWhere);
      if (pattern.literal.empty())
        parts_.normalizer.add_replace_regex(SplitRegex(pattern.regex), content);
      else
        parts_.normalizer.add_replace(pattern.literal, content);
    } else if (const auto form = unicode_form(type)) {
      parts_.normalizer.add_form(*form);
    } else {
      unknown_kind(kWhere, type, "NFC, NFD, NFKC, NFKD, Prepend, Replace and Sequence");
    }
  }

  void read_decoder(const json& value) {
    constexpr const char* kWhere = "decoder";
    if (value.is_null()) {
      check<DataError>(byte_level_, "a tokenizer without the ByteLevel pre-tokenizer needs a `decoder`");
      return;
    }
    const std::string type = type_of(value, kWhere);
    DecodeRules& rules = parts_.decode;
    if (type == "Sequence") {
      for (const json& member : get_array(value, "decoders", kWhere)) read_decoder(member);
    } else if (type == "Replace") {
      const Pattern pattern = parse_pattern(value, kWhere);
      check<DataError>(pattern.regex.empty(), "decoder.pattern must be a `String`");
      rules.replacements.emplace_back(pattern.literal, get_string(value, "content", "", kWhere));
    } else if (type == "ByteFallback") {
      rules.byte_fallback = true;
    } else if (type == "Metaspace") {
      const std::string mark = get_string(value, "replacement", std::string(kSpaceMark), kWhere);
      check<DataError>(!mark.empty(), "decoder.replacement is empty");
      if (prepend_scheme(value, kWhere) != "never") rules.drop_in_first = mark;
      rules.replacements.emplace_back(mark, " ");
    } else if (type == "Strip") {
      check<DataError>(rules.strip.empty(), "decoder: more than one Strip is not supported");
      rules.strip = get_string(value, "content", " ", kWhere);
      rules.strip_start = get_integer(value, "start", 0, kWhere);
      rules.strip_end = get_integer(value, "stop", 0, kWhere);
    } else if (type != "Fuse" && !(type == "ByteLevel" && byte_level_)) {
      unknown_kind(kWhere, type,
                   "ByteLevel (with that pre-tokenizer), Metaspace, Replace, ByteFallback, Fuse, Strip and "
                   "Sequence");
    }
  }

  const json& root_;
  TokenizerPipeline parts_;
  bool byte_level_ = false;
  int64_t limit_ = 0;
};

// The id that `key` of tokenizer_config.json names, a text or an object with `content`; without that file the
// first of the usual names that the vocabulary has.
std::optional<Token> named_token(const Vocabulary& vocabulary, const json& config, const char* key,
                                 std::initializer_list<const char*> usual) {
  if (config.is_object()) {
    const auto found = config.find(key);
    if (found == config.end() || found->is_null()) return std::nullopt;
    const bool object = found->is_object();
    return vocabulary.find(object ? get_string(*found, "content", "", key)
                                  : get_string(config, key, "", "the file"));
  }
  for (const char* name : usual)
    if (const std::optional<Token> id = vocabulary.find(name)) return id;
  return std::nullopt;
}

// Runs `read` on the JSON of a file; its errors begin with the file's name.
template <class Read>
auto with_file(const std::string& path, const Read& read) {
  const std::string content = read_whole_file(path);
  try {
    const json root = parse_json(content);
    check<DataError>(root.is_object(), "must hold an object, found ", root.type_name());
    return read(root);
  } catch (const DataError& error) {
    throw DataError(one_line(text(path, ": ", error.what())));
  }
}

}  // namespace

std::unique_ptr<Tokenizer> load_tokenizer_json(const std::string& path) {
  TokenizerPipeline parts = with_file(path, [](const json& root) { return Reader(root).read(); });
  parts.path = path;
  const auto name_ends = [&parts](const json& config) {
    parts.bos =
        named_token(parts.vocabulary, config, "bos_token", {"<|begin_of_text|>", "<s>", "<|im_start|>"});
    parts.eos = named_token(parts.vocabulary, config, "eos_token",
                            {"<|end_of_text|>", "<|endoftext|>", "</s>", "<|im_end|>", "<eos>"});
  };
  const auto config = std::filesystem::path(path).parent_path() / "tokenizer_config.json";
  if (std::filesystem::exists(config))
    with_file(config.string(), [&](const json& root) {
      name_ends(root);
      return 0;
    });
  else
    name_ends(json());
  return std::make_unique<PipelineTokenizer>(std::move(parts));
}

}  // namespace longreach::data
