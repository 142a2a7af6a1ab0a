// Normalization as in SentencePiece 0.2 (normalizer.cc); the layout of a trie unit is that of Darts-clone.
#include "data/tokenizers/sentencepiece_normalizer.h"

#include "core/error.h"
#include "data/tokenizers/space_mark.h"
#include "data/tokenizers/unicode_classes.h"

namespace longreach::data {
namespace {

uint32_t read_u32(std::string_view bytes, size_t at) {
  uint32_t value = 0;
  for (size_t i = 4; i-- > 0;) value = value << 8 | static_cast<unsigned char>(bytes[at + i]);
  return value;
}

// A unit of the double array: the label of the edge into it, whether a value hangs below, where its children
// are.
uint32_t unit_label(uint32_t unit) { return unit & 0x800000FF; }
bool unit_has_value(uint32_t unit) { return unit >> 8 & 1; }
uint32_t unit_value(uint32_t unit) { return unit & 0x7FFFFFFF; }
uint32_t unit_offset(uint32_t unit) { return unit >> 10 << ((unit & 0x200) >> 6); }

}  // namespace

SentencePieceNormalizer::SentencePieceNormalizer(const SentencePieceModel& model, bool keep_invalid)
    : keep_invalid_(keep_invalid),
      add_dummy_prefix_(model.add_dummy_prefix),
      remove_extra_whitespaces_(model.remove_extra_whitespaces),
      space_(model.escape_whitespaces ? kSpaceMark : " ") {
  for (const SentencePiece& piece : model.pieces)
    if (piece.type == SentencePiece::Type::user_defined) user_defined_.insert(piece.text, 1);
  if (model.charsmap.empty()) return;
  const std::string_view map = model.charsmap;
  const size_t trie_bytes = map.size() >= 4 ? read_u32(map, 0) : map.size();
  check<DataError>(map.size() >= 4 && trie_bytes <= map.size() - 4 && trie_bytes % 4 == 0 && trie_bytes > 0,
                   "normalizer_spec.precompiled_charsmap is broken: a trie of ", trie_bytes, " bytes in ",
                   map.size());
  for (size_t at = 4; at < 4 + trie_bytes; at += 4) trie_.push_back(read_u32(map, at));
  replacements_ = map.substr(4 + trie_bytes);
  check_trie();
}

// Every rule leads to a text of the table.
void SentencePieceNormalizer::check_trie() const {
  constexpr const char* kBroken = "normalizer_spec.precompiled_charsmap is broken: ";
  check<DataError>(unit_label(trie_[0]) == 0, kBroken, "its trie has no root");
  std::vector<bool> seen(trie_.size());
  std::vector<size_t> open{unit_offset(trie_[0])};  // where the children of a node begin
  size_t rules = 0;
  while (!open.empty()) {
    const size_t base = open.back();
    open.pop_back();
    for (size_t byte = 1; byte < 256; ++byte) {
      const size_t child = base ^ byte;
      if (child >= trie_.size() || unit_label(trie_[child]) != byte) continue;
      if (seen[child]) continue;  // tries share their ends
      seen[child] = true;
      const size_t below = child ^ unit_offset(trie_[child]);
      open.push_back(below);
      if (!unit_has_value(trie_[child])) continue;
      check<DataError>(below < trie_.size() && unit_value(trie_[below]) < replacements_.size(), kBroken,
                       "a rule leads outside of it");
      ++rules;
    }
  }
  check<DataError>(rules > 0, kBroken, "its trie holds no rule");
}

SentencePieceNormalizer::Prefix SentencePieceNormalizer::normalize_prefix(std::string_view text) const {
  const auto any = [](int64_t) { return true; };
  if (const size_t length = user_defined_.longest(text, 0, any).length)
    return {text.substr(0, length), length};
  size_t longest = 0;
  uint32_t value = 0;
  size_t node = trie_.empty() ? 0 : unit_offset(trie_[0]);
  for (size_t i = 0; i < text.size() && !trie_.empty(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    node ^= byte;
    if (node >= trie_.size() || unit_label(trie_[node]) != byte) break;
    const uint32_t unit = trie_[node];
    node ^= unit_offset(unit);
    if (!unit_has_value(unit)) continue;
    if (node >= trie_.size()) break;
    longest = i + 1;
    value = unit_value(trie_[node]);
  }
  if (longest > 0) {
    check<DataError>(value < replacements_.size(),
                     "normalizer_spec.precompiled_charsmap leads outside itself");
    const size_t end = replacements_.find('\0', value);
    const size_t length = (end == std::string::npos ? replacements_.size() : end) - value;
    return {std::string_view(replacements_).substr(value, length), longest};
  }
  const DecodedChar c = decode_char(text, 0);
  if (c.code >= kInvalidByte && !keep_invalid_) return {"\xEF\xBF\xBD", 1};
  return {text.substr(0, c.length), c.length, c.code >= kInvalidByte};
}

std::string_view SentencePieceNormalizer::without_leading_space(std::string_view text) const {
  while (!text.empty()) {
    const Prefix prefix = normalize_prefix(text);
    if (prefix.normalized != " ") break;
    text.remove_prefix(prefix.consumed);
  }
  return text;
}

SentencePieceNormalizer::Result SentencePieceNormalizer::normalize(std::string_view text,
                                                                   TextState& state) const {
  using Place = TextState::Place;
  Result result;
  std::string& out = result.text;
  if (state.place != Place::inside) {
    if (remove_extra_whitespaces_) text = without_leading_space(text);
    if (text.empty()) return result;
    if (add_dummy_prefix_ && state.place == Place::start) out += space_;
    state = {.place = Place::inside, .after_space = remove_extra_whitespaces_};
  }
  for (; state.held_spaces > 0; --state.held_spaces) out += space_;
  bool after_invalid = false, removed = false;  // the last byte of `out`; what stood behind it
  size_t kept = 0;                              // behind the last invalid byte
  while (!text.empty()) {
    Prefix prefix = normalize_prefix(text);
    text.remove_prefix(prefix.consumed);
    if (after_invalid && removed && prefix.invalid) result.cuts.push_back(out.size());
    while (state.after_space && prefix.normalized.starts_with(' ')) prefix.normalized.remove_prefix(1);
    for (const char byte : prefix.normalized) {
      if (byte == ' ')
        out += space_;
      else
        out += byte;
    }
    removed = prefix.normalized.empty();
    if (!removed) {
      after_invalid = prefix.invalid;
      if (prefix.invalid) kept = out.size();
      state.after_space = prefix.normalized.ends_with(' ');
    }
    state.after_space = state.after_space && remove_extra_whitespaces_;
  }
  for (; remove_extra_whitespaces_ && out.ends_with(space_) && out.size() - space_.size() >= kept;
       ++state.held_spaces)
    out.resize(out.size() - space_.size());
  return result;
}

}  // namespace longreach::data
