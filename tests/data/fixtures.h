// What the tests of data/ share: a byte tokenizer with special tokens, a source in memory.
#pragma once
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>

#include "core/error.h"
#include "core/temporary_folder.h"
#include "data/corpora/token_source.h"
#include "data/tokenizers/tokenizer.h"

namespace longreach::data::testing {

inline std::string contents_of(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// Bytes, and from 256 on the special tokens given; the first of them is eos when `with_eos`.
class ByteLevel : public Tokenizer {
 public:
  explicit ByteLevel(std::vector<std::string> specials = {}, bool with_eos = false, int64_t vocab_size = 0)
      : specials_(std::move(specials)), with_eos_(with_eos), vocab_size_(vocab_size) {}
  std::vector<Token> encode(std::string_view text, bool special = true) const override {
    std::vector<Token> tokens;
    while (!text.empty()) {
      size_t used = 0;
      for (size_t i = 0; special && i < specials_.size() && used == 0; ++i) {
        if (!text.starts_with(specials_[i])) continue;
        tokens.push_back(256 + static_cast<Token>(i));
        used = specials_[i].size();
      }
      if (used == 0) tokens.push_back(static_cast<unsigned char>(text[0]));
      text.remove_prefix(std::max<size_t>(used, 1));
    }
    return tokens;
  }
  std::string decode(std::span<const Token> tokens) const override {
    std::string text;
    for (const Token token : tokens)
      text += token < 256 ? std::string(1, static_cast<char>(token))
                          : specials_.at(static_cast<size_t>(token) - 256);
    return text;
  }
  int64_t vocab_size() const override {
    return std::max<int64_t>(vocab_size_, 256 + static_cast<int64_t>(specials_.size()));
  }
  std::optional<Token> bos() const override { return {}; }
  std::optional<Token> eos() const override { return with_eos_ ? std::optional<Token>(256) : std::nullopt; }
  std::optional<Token> id_of(std::string_view token) const override {
    for (size_t i = 0; i < specials_.size(); ++i)
      if (specials_[i] == token) return 256 + static_cast<Token>(i);
    return {};
  }
  std::string name() const override { return "byte level"; }
  std::string fingerprint() const override { return "byte level " + std::to_string(vocab_size()); }

 private:
  std::vector<std::string> specials_;
  bool with_eos_;
  int64_t vocab_size_;
};

class MemorySource : public TokenSource {
 public:
  MemorySource(std::vector<Token> tokens, std::vector<int64_t> offsets, std::vector<uint8_t> mask = {})
      : tokens_(std::move(tokens)), offsets_(std::move(offsets)), mask_(std::move(mask)) {}
  int64_t num_tokens() const override { return static_cast<int64_t>(tokens_.size()); }
  const std::vector<int64_t>& document_offsets() const override { return offsets_; }
  void read(int64_t begin, std::span<Token> out) const override {
    std::copy_n(tokens_.begin() + begin, out.size(), out.begin());
  }
  bool has_loss_mask() const override { return !mask_.empty(); }
  void read_loss_mask(int64_t begin, std::span<uint8_t> out) const override {
    if (mask_.empty()) return TokenSource::read_loss_mask(begin, out);
    std::copy_n(mask_.begin() + begin, out.size(), out.begin());
  }
  std::string name() const override { return "memory"; }

 private:
  std::vector<Token> tokens_;
  std::vector<int64_t> offsets_;
  std::vector<uint8_t> mask_;
};

// Every token is its own place in the stream, so a batch tells where each came from.
inline std::shared_ptr<MemorySource> counting_source(const std::vector<int64_t>& lengths, Token first = 0,
                                                     std::vector<uint8_t> mask = {}) {
  std::vector<int64_t> offsets{0};
  for (const int64_t length : lengths) offsets.push_back(offsets.back() + length);
  std::vector<Token> tokens(static_cast<size_t>(offsets.back()));
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = first + static_cast<Token>(i);
  return std::make_shared<MemorySource>(std::move(tokens), std::move(offsets), std::move(mask));
}

inline std::vector<Token> random_tokens(int64_t count, Token vocab, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<Token> tokens(static_cast<size_t>(count));
  for (Token& token : tokens) token = static_cast<Token>(random() % static_cast<uint32_t>(vocab));
  return tokens;
}

// The message of the DataError that `work` throws; fails the test when it throws none or more than one line.
template <class Work>
std::string error_of(const Work& work) {
  try {
    work();
  } catch (const DataError& error) {
    EXPECT_EQ(one_line(error.what()), error.what());
    return error.what();
  }
  ADD_FAILURE() << "no DataError";
  return {};
}

inline std::vector<Token> read_all(const TokenSource& source) {
  std::vector<Token> tokens(static_cast<size_t>(source.num_tokens()));
  source.read(0, tokens);
  return tokens;
}

}  // namespace longreach::data::testing
