// Encoding with the pieces of a SentencePiece model. Algorithms as in SentencePiece 0.2: unigram_model.cc
// (EncodeOptimized), bpe_model.cc, sentencepiece_processor.cc.
#include "data/tokenizers/sentencepiece.h"

#include <algorithm>
#include <array>
#include <bit>
#include <limits>

#include "core/error.h"
#include "data/common/fingerprint.h"
#include "data/common/json_file.h"
#include "data/tokenizers/bpe_merge.h"
#include "data/tokenizers/byte_trie.h"
#include "data/tokenizers/sentencepiece_model.h"
#include "data/tokenizers/sentencepiece_normalizer.h"
#include "data/tokenizers/space_mark.h"
#include "data/tokenizers/unicode_classes.h"
#include "data/tokenizers/vocabulary.h"

namespace longreach::data {
namespace {

using Type = SentencePiece::Type;
constexpr float kUnknownPenalty = 10.0f;
constexpr float kRebase = -100000.0f;  // scores of a path beyond this are counted anew

// The ids by text, and the pieces that encoding and decoding treat apart.
class PieceTable {
 public:
  explicit PieceTable(const SentencePieceModel& model) : pieces_(model.pieces), byte_ids_{} {
    byte_ids_.fill(-1);
    for (size_t i = 0; i < pieces_.size(); ++i) {
      vocabulary_.add(pieces_[i].text, static_cast<int64_t>(i), static_cast<int64_t>(pieces_.size()));
      if (pieces_[i].type == Type::unknown) {
        check<DataError>(unknown_ < 0, "more than one piece of type unknown");
        unknown_ = static_cast<Token>(i);
      } else if (pieces_[i].type == Type::byte) {
        const auto byte = byte_of_token_name(pieces_[i].text);
        check<DataError>(byte.has_value() && model.byte_fallback, "byte piece `",
                         one_line(pieces_[i].text, 40), "` is ",
                         model.byte_fallback ? "malformed" : "out of place without byte_fallback");
        byte_ids_[*byte] = static_cast<Token>(i);
      } else if (is_text(static_cast<Token>(i))) {
        crosses_words_ = crosses_words_ || crosses_marked_words(pieces_[i].text);
      }
    }
    check<DataError>(unknown_ >= 0, "no piece of type unknown");
    const bool all_bytes = std::ranges::none_of(byte_ids_, [](Token id) { return id < 0; });
    check<DataError>(!model.byte_fallback || all_bytes, "byte_fallback without all 256 byte pieces");
    byte_fallback_ = model.byte_fallback;
  }

  const SentencePiece& operator[](Token id) const { return pieces_[id]; }
  Token size() const { return static_cast<Token>(pieces_.size()); }
  Token unknown() const { return unknown_; }
  const Vocabulary& vocabulary() const { return vocabulary_; }

  // Pieces that stand for text that may be met.
  bool is_text(Token id) const {
    const Type type = pieces_[id].type;
    return type == Type::normal || type == Type::user_defined || type == Type::unused;
  }
  // A text piece by its text, or -1.
  Token find_text(std::string_view text) const {
    const Token id = vocabulary_.find(text).value_or(-1);
    return id >= 0 && is_text(id) ? id : -1;
  }
  // Whether the text between two places where a marked word begins can be encoded on its own.
  bool words_are_independent() const { return !crosses_words_ && find_text(kSpaceMark) >= 0; }

  // Appends a piece that encoding has found; one that is unknown becomes its bytes, or joins an unknown one
  // before it.
  void emit(Token id, std::string_view surface, size_t first, std::vector<Token>& out) const {
    if (id != unknown_) {
      out.push_back(id);
    } else if (byte_fallback_) {
      for (const char byte : surface) out.push_back(byte_ids_[static_cast<unsigned char>(byte)]);
    } else if (out.size() == first || out.back() != unknown_) {
      out.push_back(id);
    }
  }

 private:
  const std::vector<SentencePiece>& pieces_;
  Vocabulary vocabulary_;
  std::array<Token, 256> byte_ids_;
  Token unknown_ = -1;
  bool crosses_words_ = false, byte_fallback_ = false;
};

// The segmentation of the highest total score.
class UnigramEncoder {
 public:
  explicit UnigramEncoder(const PieceTable& pieces) : pieces_(pieces) {
    float lowest = std::numeric_limits<float>::max();
    for (Token id = 0; id < pieces.size(); ++id) {
      if (pieces.is_text(id)) {
        trie_.insert(pieces[id].text, id);
        longest_ = std::max(longest_, pieces[id].text.size());
      }
      if (pieces[id].type != Type::normal) continue;
      lowest = std::min(lowest, pieces[id].score);
      highest_ = std::max(highest_, pieces[id].score);
    }
    unknown_score_ = lowest - kUnknownPenalty;
  }

  // `path_score`: of the text before, which it goes on with; float sums round by where they stand.
  void encode(std::string_view text, float& path_score, std::vector<Token>& out) const {
    check<DataError>(text.size() < uint32_t{1} << 31, "a text of ", text.size(), " bytes, allowed are 2 GiB");
    std::vector<Node> best(text.size() + 1);
    best[0].score = path_score;
    for (size_t start = 0; start < text.size();) {
      const size_t char_length = decode_char(text, start).length;
      if (best[start].score < kRebase) rebase(best, start);
      const float before = best[start].score;
      const auto offer = [&](size_t end, Token id, float score) {
        const float total = score + before;  // in float32, as the library: its rounding decides ties
        if (best[end].start >= 0 && total <= best[end].score) return;
        best[end] = {total, static_cast<int32_t>(start), id};
      };
      bool single = false;
      int64_t node = ByteTrie::kRoot;
      for (size_t end = start; end < text.size();) {
        node = trie_.step(node, text[end++]);
        if (node == ByteTrie::kNone) break;
        const auto id = static_cast<Token>(trie_.value(node));
        if (id < 0 || pieces_[id].type == Type::unused) continue;
        offer(end, id, score(id, end - start));
        single = single || end - start == char_length;
      }
      if (!single) offer(start + char_length, pieces_.unknown(), unknown_score_);
      start += char_length;
    }
    path_score = best[text.size()].score;
    const size_t first = out.size();
    std::vector<std::pair<int32_t, int32_t>> path;
    for (auto end = static_cast<int32_t>(text.size()); end > 0; end = best[end].start)
      path.emplace_back(best[end].start, end);
    for (auto part = path.rbegin(); part != path.rend(); ++part)
      pieces_.emit(best[part->second].id, text.substr(part->first, part->second - part->first), first, out);
  }

 private:
  struct Node {  // the best path that ends here
    float score = 0;
    int32_t start = -1;
    Token id = -1;
  };

  // Counts scores from `start` on, so that float32 keeps its precision however long the text is.
  void rebase(std::vector<Node>& best, size_t start) const {
    const float base = best[start].score;
    const size_t reach = std::min(best.size(), start + longest_ + 1);
    for (size_t end = start; end < reach; ++end)
      if (end == start || best[end].start >= 0) best[end].score -= base;
  }

  float score(Token id, size_t length) const {
    if (pieces_[id].type != Type::user_defined) return pieces_[id].score;
    return static_cast<float>(static_cast<float>(length) * highest_ - 0.1);
  }

  const PieceTable& pieces_;
  ByteTrie trie_;
  size_t longest_ = 4;  // bytes that a piece or an unknown character may take
  float unknown_score_ = 0;
  float highest_ = std::numeric_limits<float>::min();  // the library begins at the smallest positive number
};

// Pairs merge in the order of the score of what they make.
class PairEncoder {
 public:
  PairEncoder(const PieceTable& pieces, const ByteTrie& user_defined)
      : pieces_(pieces), user_defined_(user_defined), ranks_(static_cast<size_t>(pieces.size())) {
    std::vector<float> scores;
    for (Token id = 0; id < pieces.size(); ++id) scores.push_back(pieces[id].score);
    std::ranges::sort(scores, std::greater<>());
    for (Token id = 0; id < pieces.size(); ++id)
      ranks_[id] = static_cast<uint32_t>(
          std::ranges::lower_bound(scores, pieces[id].score, std::greater<>()) - scores.begin());
  }

  void encode(std::string_view text, std::vector<Token>& out) const {
    BorrowedScratch scratch(pool_);
    const auto work = [this](std::string_view word, BpeScratch& s, std::vector<Token>& tokens) {
      encode_word(word, s, tokens);
    };
    for (size_t at = 0; at < text.size();) {
      const size_t end = pieces_.words_are_independent() ? next_marked_word(text, at) : text.size();
      encode_cached(text.substr(at, end - at), *scratch, out, work);
      at = end;
    }
  }

 private:
  using Parts = std::unordered_map<std::string_view, size_t>;  // an unused piece -> where its two parts meet

  void encode_word(std::string_view word, BpeScratch& scratch, std::vector<Token>& out) const {
    check<DataError>(word.size() < uint32_t{1} << 31, "a word of ", word.size(), " bytes, allowed are 2 GiB");
    scratch.symbols.clear();
    const auto any = [](int64_t) { return true; };
    for (size_t at = 0; at < word.size();) {
      const size_t defined = user_defined_.longest(word, at, any).length;
      const size_t length = defined > 0 ? defined : decode_char(word, at).length;
      scratch.symbols.push_back({.begin = static_cast<uint32_t>(at),
                                 .length = static_cast<uint32_t>(length),
                                 .frozen = defined > 0});
      at += length;
    }
    Parts parts;
    merge_symbols(scratch,
                  [&](const MergeSymbol& left, const MergeSymbol& right) -> std::optional<PairMerge> {
                    const std::string_view both = word.substr(left.begin, left.length + right.length);
                    const Token id = pieces_.find_text(both);
                    if (id < 0) return std::nullopt;
                    if (pieces_[id].type == Type::unused) parts[both] = left.length;
                    return PairMerge{ranks_[id], id};
                  });
    const size_t first = out.size();
    for (const MergeSymbol& symbol : scratch.symbols)
      if (symbol.length > 0) emit(word.substr(symbol.begin, symbol.length), parts, first, out);
  }

  // Pieces of type unused are taken apart again.
  void emit(std::string_view text, const Parts& parts, size_t first, std::vector<Token>& out) const {
    std::vector<std::string_view> open{text};
    while (!open.empty()) {
      const std::string_view piece = open.back();
      open.pop_back();
      const Token id = pieces_.vocabulary().find(piece).value_or(pieces_.unknown());
      const auto split = pieces_[id].type == Type::unused ? parts.find(piece) : parts.end();
      if (split == parts.end()) {
        pieces_.emit(id, piece, first, out);
      } else {
        open.push_back(piece.substr(split->second));
        open.push_back(piece.substr(0, split->second));
      }
    }
  }

  const PieceTable& pieces_;
  const ByteTrie& user_defined_;
  std::vector<uint32_t> ranks_;  // by id; a higher score has a lower rank, equal scores the same
  mutable BpeScratchPool pool_;
};

class SentencePieceTokenizer : public Tokenizer {
 public:
  SentencePieceTokenizer(SentencePieceModel model, std::string path)
      : path_(std::move(path)),
        model_(std::move(model)),
        pieces_(model_),
        normalizer_(model_, model_.byte_fallback),
        unigram_(pieces_),
        pairs_(pieces_, normalizer_.user_defined()) {}

  std::vector<Token> encode(std::string_view text, bool special) const override {
    TextState state;
    return encode_part(text, special, state);
  }

  std::vector<Token> encode_part(std::string_view text, bool, TextState& state) const override {
    std::vector<Token> out;
    try {
      SentencePieceNormalizer::Result normalized = normalizer_.normalize(text, state);
      normalized.cuts.push_back(normalized.text.size());
      size_t begin = 0;
      for (const size_t end : normalized.cuts) {
        encode_normalized(std::string_view(normalized.text).substr(begin, end - begin), state, out);
        begin = end;
      }
    } catch (const DataError& error) {
      throw DataError(one_line(longreach::text(path_, ": ", error.what())));
    }
    return out;
  }

  std::string decode(std::span<const Token> tokens) const override {
    std::string out;
    bool at_start = true, mark_seen = false;
    for (const Token id : tokens) {
      check<DataError>(id >= 0 && id < pieces_.size(), path_, ": no token has the id ", id,
                       ", allowed are 0 to ", pieces_.size() - 1);
      const SentencePiece& piece = pieces_[id];
      if (piece.type == Type::byte) {
        out += static_cast<char>(*byte_of_token_name(piece.text));
        continue;
      }
      if (mark_seen || !out.empty()) at_start = false;
      mark_seen = decode_piece(piece, at_start, out);
    }
    return out;
  }

  int64_t vocab_size() const override { return pieces_.size(); }
  std::optional<Token> bos() const override { return control(model_.bos_piece); }
  std::optional<Token> eos() const override { return control(model_.eos_piece); }
  std::optional<Token> id_of(std::string_view token) const override {
    return pieces_.vocabulary().find(token);
  }
  std::string name() const override {
    return model_.kind == SentencePieceModel::Kind::bpe ? "bpe" : "unigram";
  }

  std::string fingerprint() const override {
    std::string rules =
        text(static_cast<int>(model_.kind), model_.byte_fallback, model_.add_dummy_prefix,
             model_.remove_extra_whitespaces, model_.escape_whitespaces, hash_hex(model_.charsmap));
    for (const SentencePiece& piece : model_.pieces)
      rules += text("\n", static_cast<int>(piece.type), " ", std::bit_cast<uint32_t>(piece.score), " ",
                    piece.text.size(), " ", piece.text);
    return hash_hex(rules);
  }

 private:
  void encode_normalized(std::string_view text, TextState& state, std::vector<Token>& out) const {
    if (model_.kind == SentencePieceModel::Kind::bpe)
      pairs_.encode(text, out);
    else
      unigram_.encode(text, state.score, out);
  }

  // Appends the text of a piece; true when the mark of the dummy prefix was taken off.
  bool decode_piece(const SentencePiece& piece, bool at_start, std::string& out) const {
    if (piece.type == Type::control) return false;
    if (piece.type == Type::unknown) {
      out += model_.unknown_surface;
      return false;
    }
    std::string_view rest = piece.text;
    bool mark = false;
    if (at_start && (model_.add_dummy_prefix || model_.remove_extra_whitespaces) &&
        rest.starts_with(kSpaceMark)) {
      rest.remove_prefix(kSpaceMark.size());
      mark = !model_.remove_extra_whitespaces;  // with that rule every leading mark goes
    }
    for (size_t at = 0; at < rest.size();) {
      const bool space = rest.substr(at).starts_with(kSpaceMark);
      out += space ? ' ' : rest[at];
      at += space ? kSpaceMark.size() : 1;
    }
    return mark;
  }

  std::optional<Token> control(const std::string& name) const {
    const std::optional<Token> id = pieces_.vocabulary().find(name);
    return id && pieces_[*id].type == Type::control ? id : std::nullopt;
  }

  std::string path_;
  SentencePieceModel model_;
  PieceTable pieces_;
  SentencePieceNormalizer normalizer_;
  UnigramEncoder unigram_;
  PairEncoder pairs_;
};

}  // namespace

std::unique_ptr<Tokenizer> load_sentencepiece(const std::string& path) {
  const std::string content = read_whole_file(path);
  try {
    SentencePieceModel model = parse_sentencepiece_model(content);
    using Kind = SentencePieceModel::Kind;
    check<DataError>(model.kind == Kind::unigram || model.kind == Kind::bpe, "a SentencePiece model of type ",
                     model.kind == Kind::word ? "word" : "char", "; supported are unigram and bpe");
    check<DataError>(!model.treat_whitespace_as_suffix, "treat_whitespace_as_suffix is not supported");
    check<DataError>(model.denormalizer_charsmap.empty(), "denormalizer_spec with rules is not supported");
    return std::make_unique<SentencePieceTokenizer>(std::move(model), path);
  } catch (const DataError& error) {
    throw DataError(one_line(text(path, ": ", error.what())));
  }
}

}  // namespace longreach::data
