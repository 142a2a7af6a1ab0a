// Encoding and decoding in the order of Hugging Face's tokenizers.
#include "data/tokenizers/pipeline_tokenizer.h"

#include "core/error.h"
#include "data/tokenizers/byte_alphabet.h"

namespace longreach::data {

PipelineTokenizer::PipelineTokenizer(TokenizerPipeline parts)
    : parts_(std::move(parts)),
      model_(parts_.vocabulary, parts_.merges, parts_.bpe),
      literal_tokens_(static_cast<size_t>(parts_.vocabulary.size())) {
  parts_.merges = {};
  for (const AddedTokens* added : {&parts_.raw_tokens, &parts_.normalized_tokens})
    for (const AddedToken& token : added->tokens()) literal_tokens_[token.id] = true;
}

std::vector<Token> PipelineTokenizer::encode(std::string_view text, bool special) const {
  TextState state;
  return encode_part(text, special, state);
}

Tokenizer::Strip PipelineTokenizer::strip_of(Token id) const {
  if (!literal_tokens_[id]) return {};
  for (const AddedTokens* added : {&parts_.raw_tokens, &parts_.normalized_tokens})
    for (const AddedToken& token : added->tokens())
      if (token.id == id) return {token.left_strip, token.right_strip};
  return {};
}

std::vector<Token> PipelineTokenizer::encode_part(std::string_view text, bool special,
                                                  TextState& state) const {
  std::vector<Token> out;
  BorrowedScratch scratch(pool_);
  try {
    encode_text(text, special, state.place, *scratch, out);
  } catch (const DataError& error) {
    throw DataError(one_line(longreach::text(parts_.path, ": ", error.what())));
  }
  return out;
}

void PipelineTokenizer::encode_text(std::string_view text, bool special, TextState::Place& place,
                                    BpeScratch& scratch, std::vector<Token>& out) const {
  for (const AddedTokens::Part& part : parts_.raw_tokens.split(text, special)) {
    if (part.token) {
      out.push_back(part.token->id);
      place = TextState::Place::apart;
      continue;
    }
    if (parts_.normalizer.empty()) {
      encode_normalized(part.text, special, place, scratch, out);
      continue;
    }
    for (const std::string& piece : parts_.normalizer.apply(part.text, place == TextState::Place::inside))
      encode_normalized(piece, special, place, scratch, out);
  }
}

void PipelineTokenizer::encode_normalized(std::string_view text, bool special, TextState::Place& place,
                                          BpeScratch& scratch, std::vector<Token>& out) const {
  using Place = TextState::Place;
  const PreTokenizer::Sink sink = [&](std::string_view word) { model_.encode(word, scratch, out); };
  for (const AddedTokens::Part& part : parts_.normalized_tokens.split(text, special)) {
    if (part.token) out.push_back(part.token->id);
    place = part.token ? Place::apart : parts_.pre_tokenizer.split(part.text, place, sink);
  }
  if (text.empty() && place == Place::start) place = Place::apart;
}

std::string PipelineTokenizer::decode(std::span<const Token> tokens) const {
  for (const Token id : tokens)
    check<DataError>(parts_.vocabulary.contains(id), parts_.path, ": no token has the id ", id,
                     ", allowed are 0 to ", vocab_size() - 1);
  if (!parts_.bpe.byte_level) return decode_characters(tokens);
  std::string out;
  for (const Token id : tokens) {
    const std::string_view token = parts_.vocabulary.text(id);
    if (literal_tokens_[id] || !append_from_byte_alphabet(token, out)) out += token;
  }
  return out;
}

std::string PipelineTokenizer::decode_characters(std::span<const Token> tokens) const {
  const DecodeRules& rules = parts_.decode;
  std::string out;
  for (size_t i = 0; i < tokens.size(); ++i) {
    std::string token(parts_.vocabulary.text(tokens[i]));
    const auto byte = rules.byte_fallback ? byte_of_token_name(token) : std::nullopt;
    if (byte) token = static_cast<char>(*byte);
    if (i == 0 && !rules.drop_in_first.empty()) token = replace_all(token, rules.drop_in_first, "");
    for (const auto& [pattern, content] : rules.replacements) token = replace_all(token, pattern, content);
    out += token;
  }
  if (rules.strip.empty()) return out;
  std::string_view kept = out;
  for (int64_t i = 0; i < rules.strip_start && kept.starts_with(rules.strip); ++i)
    kept.remove_prefix(rules.strip.size());
  for (int64_t i = 0; i < rules.strip_end && kept.ends_with(rules.strip); ++i)
    kept.remove_suffix(rules.strip.size());
  return std::string(kept);
}

}  // namespace longreach::data
