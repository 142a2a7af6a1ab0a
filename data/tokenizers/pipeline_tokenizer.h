// The tokenizer that a Hugging Face tokenizer.json describes: added tokens, normalizer, pre-tokenizer, BPE,
// decoder.
#pragma once
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "data/tokenizers/added_tokens.h"
#include "data/tokenizers/bpe_model.h"
#include "data/tokenizers/normalizer.h"
#include "data/tokenizers/pre_tokenizer.h"
#include "data/tokenizers/tokenizer.h"
#include "data/tokenizers/vocabulary.h"

namespace longreach::data {

// How tokens become text again when they are not written in the byte alphabet.
struct DecodeRules {
  std::vector<std::pair<std::string, std::string>> replacements;  // in every token
  bool byte_fallback = false;                                     // <0x0A> is a byte
  std::string strip;                       // this character is taken off the whole text,
  int64_t strip_start = 0, strip_end = 0;  // so many times at most at its ends
  std::string drop_in_first;               // removed from the first token
};

struct TokenizerPipeline {
  std::string path;
  Vocabulary vocabulary;
  std::vector<BpeModel::Merge> merges;
  BpeOptions bpe;
  AddedTokens raw_tokens, normalized_tokens;  // sought before and after the normalizer
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  DecodeRules decode;
  std::optional<Token> bos, eos;
  std::string fingerprint;
};

class PipelineTokenizer : public Tokenizer {
 public:
  explicit PipelineTokenizer(TokenizerPipeline parts);

  std::vector<Token> encode(std::string_view text, bool special) const override;
  std::vector<Token> encode_part(std::string_view text, bool special, TextState& state) const override;
  Strip strip_of(Token id) const override;
  std::string decode(std::span<const Token> tokens) const override;
  int64_t vocab_size() const override { return parts_.vocabulary.size(); }
  std::optional<Token> bos() const override { return parts_.bos; }
  std::optional<Token> eos() const override { return parts_.eos; }
  std::optional<Token> id_of(std::string_view token) const override { return parts_.vocabulary.find(token); }
  std::string name() const override { return "bpe"; }
  std::string fingerprint() const override { return parts_.fingerprint; }

 private:
  void encode_text(std::string_view text, bool special, TextState::Place& place, BpeScratch& scratch,
                   std::vector<Token>& out) const;
  void encode_normalized(std::string_view text, bool special, TextState::Place& place, BpeScratch& scratch,
                         std::vector<Token>& out) const;
  std::string decode_characters(std::span<const Token> tokens) const;

  TokenizerPipeline parts_;
  BpeModel model_;                    // refers to the vocabulary in parts_
  std::vector<bool> literal_tokens_;  // by id: an added token, whose text is not in the byte alphabet
  mutable BpeScratchPool pool_;
};

}  // namespace longreach::data
