// nanoGPT's and llm.c's flat token files, read with positioned reads.
#include "data/corpora/token_bin.h"

#include <algorithm>
#include <array>

#include "core/error.h"
#include "data/common/files.h"
#include "data/common/fingerprint.h"

namespace longreach::data {
namespace {

constexpr int64_t kHeaderBytes = 256 * 4;
constexpr int32_t kMagicNarrow = 20240520;  // GPT-2 tokens, version 1, uint16
constexpr int32_t kMagicWide = 20240801;    // Llama-3 tokens, version 7, uint32

class TokenBin : public TokenSource {
 public:
  TokenBin(const std::string& path, const Tokenizer& tokenizer)
      : file_(path), vocab_size_(tokenizer.vocab_size()) {
    read_header();
    find_documents(tokenizer.eos());
  }

  int64_t num_tokens() const override { return tokens_; }
  const std::vector<int64_t>& document_offsets() const override { return offsets_; }
  std::string name() const override { return file_.path(); }
  std::string fingerprint() const override { return fingerprint_; }

  void read(int64_t begin, std::span<Token> out) const override {
    const auto count = static_cast<int64_t>(out.size());
    check(begin >= 0 && begin + count <= tokens_, name(), ": tokens ", begin, " to ", begin + count, " of ",
          tokens_);
    if (width_ == 2) {
      std::vector<uint16_t> narrow(out.size());
      file_.read(header_ + begin * 2, narrow.data(), count * 2);
      std::copy(narrow.begin(), narrow.end(), out.begin());
    } else {
      file_.read(header_ + begin * 4, out.data(), count * 4);
    }
    const auto wrong = first_outside(out, vocab_size_);
    check<DataError>(!wrong, name(), ": token ", wrong ? out[*wrong] : 0, " at ",
                     begin + static_cast<int64_t>(wrong.value_or(0)), ", but the tokenizer knows ",
                     vocab_size_, "; was the file made with another one?");
  }

 private:
  void read_header() {
    std::array<int32_t, 3> head{};
    if (file_.size() >= kHeaderBytes) file_.read(0, head.data(), sizeof head);
    const bool wide = head[0] == kMagicWide, llm_c = wide || head[0] == kMagicNarrow;
    if (llm_c) {
      check<DataError>(head[1] == (wide ? 7 : 1), name(), ": llm.c token file version ", head[1],
                       ", supported: ", wide ? 7 : 1);
      header_ = kHeaderBytes;
      width_ = wide ? 4 : 2;
    }
    const int64_t bytes = file_.size() - header_;
    check<DataError>(bytes % width_ == 0, name(), ": ", bytes, " bytes of tokens, not a multiple of ", width_,
                     "; it was cut short or is not a token file");
    tokens_ = bytes / width_;
    check<DataError>(!llm_c || head[2] == tokens_, name(), ": the header says ", head[2],
                     " tokens, the file holds ", tokens_, "; it was cut short");
    check<DataError>(tokens_ > 0, name(), ": is empty");
  }

  void find_documents(std::optional<Token> eos) {
    const bool eos_begins = header_ > 0;
    offsets_.push_back(0);
    Hasher hasher;
    std::vector<Token> block(1 << 16);
    for (int64_t at = 0; at < tokens_; at += static_cast<int64_t>(block.size())) {
      block.resize(static_cast<size_t>(std::min<int64_t>(1 << 16, tokens_ - at)));
      read(at, block);
      hasher.add(block);
      for (size_t i = 0; eos && i < block.size(); ++i) {
        const int64_t border = at + static_cast<int64_t>(i) + (eos_begins ? 0 : 1);
        if (block[i] == *eos && border > offsets_.back() && border < tokens_) offsets_.push_back(border);
      }
    }
    offsets_.push_back(tokens_);
    hasher.add(offsets_);
    fingerprint_ = hasher.hex();
  }

  PositionedFile file_;
  int64_t vocab_size_, header_ = 0, width_ = 2, tokens_ = 0;
  std::vector<int64_t> offsets_;
  std::string fingerprint_;
};

}  // namespace

std::shared_ptr<const TokenSource> open_token_bin(const std::string& path, const Tokenizer& tokenizer) {
  return std::make_shared<TokenBin>(path, tokenizer);
}

}  // namespace longreach::data
