// Encoding words with ranked merges.
#include "data/tokenizers/bpe_model.h"

#include "core/error.h"
#include "data/tokenizers/byte_alphabet.h"
#include "data/tokenizers/space_mark.h"
#include "data/tokenizers/unicode_classes.h"

namespace longreach::data {
namespace {

uint64_t pair_key(Token left, Token right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

bool in_valid_char(std::string_view text, size_t at) {
  for (size_t back = 0; back < 4 && back <= at; ++back) {
    const DecodedChar c = decode_char(text, at - back);
    if (c.code < kInvalidByte) return c.length > back;
  }
  return false;
}

}  // namespace

BpeModel::BpeModel(const Vocabulary& vocabulary, const std::vector<Merge>& merges, const BpeOptions& options)
    : vocabulary_(vocabulary), options_(options) {
  for (int byte = 0; byte < 256; ++byte) {
    const auto value = static_cast<unsigned char>(byte);
    const char character = static_cast<char>(value);
    const std::string name = options.byte_level ? to_byte_alphabet({&character, 1}) : byte_token_name(value);
    byte_ids_[byte] = vocabulary.find(name).value_or(-1);
  }
  cut_at_marks_ = !options.byte_level && !options.ignore_merges && vocabulary.find(kSpaceMark).has_value();
  uint64_t rank = 0;
  for (const Merge& merge : merges) {
    merges_.insert_or_assign(pair_key(merge.left, merge.right),
                             rank++ << 32 | static_cast<uint32_t>(merge.merged));
    const bool crosses = vocabulary.text(merge.right).starts_with(kSpaceMark) &&
                         !vocabulary.text(merge.left).ends_with(kSpaceMark);
    cut_at_marks_ = cut_at_marks_ && !crosses;
  }
}

void BpeModel::encode(std::string_view word, BpeScratch& scratch, std::vector<Token>& out) const {
  const auto work = [this](std::string_view part, BpeScratch& s, std::vector<Token>& tokens) {
    encode_word(part, s, tokens);
  };
  if (!cut_at_marks_) {
    encode_cached(word, scratch, out, work);
    return;
  }
  for (size_t at = 0; at < word.size();) {
    const size_t end = next_marked_word(word, at);
    encode_cached(word.substr(at, end - at), scratch, out, work);
    at = end;
  }
}

void BpeModel::encode_word(std::string_view word, BpeScratch& scratch, std::vector<Token>& out) const {
  check<DataError>(word.size() < uint32_t{1} << 31, "a word of ", word.size(), " bytes, allowed are 2 GiB");
  if (options_.ignore_merges) {
    const auto whole =
        options_.byte_level ? vocabulary_.find(to_byte_alphabet(word)) : vocabulary_.find(word);
    if (whole) {
      out.push_back(*whole);
      return;
    }
  }
  scratch.symbols.clear();
  if (options_.byte_level)
    add_bytes(word, scratch.symbols);
  else
    add_characters(word, scratch.symbols);
  merge_symbols(
      scratch, [this](const MergeSymbol& left, const MergeSymbol& right) -> std::optional<PairMerge> {
        const uint64_t found = merges_.find(pair_key(left.id, right.id));
        if (found == FlatMap::kAbsent) return std::nullopt;
        return PairMerge{static_cast<uint32_t>(found >> 32), static_cast<Token>(found & 0xFFFFFFFF)};
      });
  for (const MergeSymbol& symbol : scratch.symbols)
    if (symbol.length > 0) out.push_back(symbol.id);
}

void BpeModel::add_bytes(std::string_view word, std::vector<MergeSymbol>& symbols) const {
  for (size_t at = 0; at < word.size(); ++at) {
    const Token id = byte_ids_[static_cast<unsigned char>(word[at])];
    if (id >= 0)
      symbols.push_back({.begin = static_cast<uint32_t>(at), .length = 1, .id = id});
    else
      add_unknown(word, at, 1, symbols);
  }
}

void BpeModel::add_characters(std::string_view word, std::vector<MergeSymbol>& symbols) const {
  for (size_t at = 0; at < word.size();) {
    const size_t length = decode_char(word, at).length;
    const std::string_view character = word.substr(at, length);
    const std::optional<Token> id = vocabulary_.find(character);
    bool bytes = !id && options_.byte_fallback;
    for (const char byte : character) bytes = bytes && byte_ids_[static_cast<unsigned char>(byte)] >= 0;
    if (id) {
      symbols.push_back(
          {.begin = static_cast<uint32_t>(at), .length = static_cast<uint32_t>(length), .id = *id});
    } else if (bytes) {
      for (size_t i = at; i < at + length; ++i)
        symbols.push_back({.begin = static_cast<uint32_t>(i),
                           .length = 1,
                           .id = byte_ids_[static_cast<unsigned char>(word[i])]});
    } else {
      add_unknown(word, at, length, symbols);
    }
    at += length;
  }
}

void BpeModel::add_unknown(std::string_view word, size_t begin, size_t length,
                           std::vector<MergeSymbol>& symbols) const {
  if (!options_.unknown) {
    check<DataError>(
        in_valid_char(word, begin), "the byte ", byte_token_name(static_cast<unsigned char>(word[begin])),
        " is no UTF-8 and has no token in this vocabulary; the tokenizer `bytes` takes every byte");
    return;
  }
  const bool fuse = options_.fuse_unknown && !symbols.empty() && symbols.back().id == *options_.unknown &&
                    symbols.back().begin + symbols.back().length == begin;
  if (fuse)
    symbols.back().length += static_cast<uint32_t>(length);
  else
    symbols.push_back({.begin = static_cast<uint32_t>(begin),
                       .length = static_cast<uint32_t>(length),
                       .id = *options_.unknown});
}

}  // namespace longreach::data
