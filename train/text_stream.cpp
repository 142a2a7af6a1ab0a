#include "train/text_stream.h"

#include <algorithm>
#include <utility>

namespace longreach {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

// Bytes at the end that begin a UTF-8 character and do not finish it.
size_t incomplete_tail(std::string_view text) {
  for (size_t back = 1; back <= std::min<size_t>(3, text.size()); ++back) {
    const auto byte = static_cast<unsigned char>(text[text.size() - back]);
    if ((byte & 0xC0) == 0x80) continue;  // a continuation: look further back for its lead
    const size_t length = byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : byte >= 0xC0 ? 2 : 1;
    return length > back ? back : 0;
  }
  return 0;
}

// Bytes at the end of `text` that `stop` begins with.
size_t begun(std::string_view text, std::string_view stop) {
  size_t length = std::min(text.size(), stop.size() - 1);
  while (length > 0 && !stop.starts_with(text.substr(text.size() - length))) --length;
  return length;
}

}  // namespace

TextStream::TextStream(const data::Tokenizer& tokenizer, std::vector<data::Token> prompt,
                       std::vector<std::string> stops, Sink sink)
    : tokenizer_(tokenizer), tokens_(std::move(prompt)), stops_(std::move(stops)), sink_(std::move(sink)) {
  whole_ = tokenizer_.decode(tokens_);
  begin_ = whole_.size();
  write_up_to(certain());
}

bool TextStream::add(data::Token token) {
  tokens_.push_back(token);
  whole_ = tokenizer_.decode(tokens_);
  size_t end = std::string::npos;
  for (const std::string& stop : stops_) end = std::min(end, whole_.find(stop, begin_));
  const bool stopped = end != std::string::npos;
  if (stopped) whole_.resize(end);
  write_up_to(stopped ? end : certain());
  return !stopped;
}

size_t TextStream::certain() const {
  std::string_view text = whole_;
  text.remove_suffix(incomplete_tail(text));
  while (text.ends_with(kReplacement)) text.remove_suffix(kReplacement.size());
  const std::string_view generated = text.substr(std::min(begin_, text.size()));
  size_t held = 0;
  for (const std::string& stop : stops_) held = std::max(held, begun(generated, stop));
  return text.size() - held;
}

void TextStream::write_up_to(size_t end) {
  if (end <= written_.size()) return;
  const std::string_view piece = std::string_view(whole_).substr(written_.size(), end - written_.size());
  sink_(piece);
  written_ += piece;
}

void TextStream::finish() { write_up_to(whole_.size()); }

}  // namespace longreach
