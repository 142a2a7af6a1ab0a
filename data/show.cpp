#include "data/show.h"

#include <algorithm>
#include <ostream>
#include <vector>

#include "core/error.h"
#include "core/utf8.h"

namespace longreach::data {
namespace {

// Writes text line by line behind `mark`, so that nothing in it can move the cursor or pass for another line.
class MarkedText {
 public:
  explicit MarkedText(std::ostream& out) : out_(out) {}

  void write(std::string_view text, char mark) {
    if (line_open_ && mark != mark_) end_line();
    mark_ = mark;
    for (size_t at = 0; at < text.size();) {
      if (!line_open_) out_ << mark << ' ';
      line_open_ = true;
      at += write_one(text, at);
    }
  }

  void end_line() {
    if (line_open_) out_ << '\n';
    line_open_ = false;
  }

 private:
  size_t write_one(std::string_view text, size_t at) {
    const auto byte = static_cast<unsigned char>(text[at]);
    const size_t length = utf8_length(text, at);
    const bool control = byte < 0x20 || byte == 0x7f ||
                         (length == 2 && byte == 0xc2 && static_cast<unsigned char>(text[at + 1]) < 0xa0);
    if (byte == '\n') {
      out_ << "\\n";
      end_line();
    } else if (byte == '\t' || byte == '\r' || byte == '\\') {
      out_ << '\\' << (byte == '\t' ? 't' : byte == '\r' ? 'r' : '\\');
    } else if (control || length == 0) {
      write_escaped(text.substr(at, std::max<size_t>(length, 1)));
    } else {
      out_ << text.substr(at, length);
    }
    return std::max<size_t>(length, 1);
  }

  void write_escaped(std::string_view bytes) {
    constexpr char kDigits[] = "0123456789abcdef";
    for (const unsigned char byte : bytes) out_ << "\\x" << kDigits[byte >> 4] << kDigits[byte & 15];
  }

  std::ostream& out_;
  bool line_open_ = false;
  char mark_ = ' ';
};

// How a token reads depends on those before it, so that each run of equal labels is what it adds to the text
// so far.
void write_text(const Tokenizer& tokenizer, std::span<const Token> tokens, std::span<const uint8_t> mask,
                std::ostream& out) {
  MarkedText marked(out);
  size_t written = 0;
  for (size_t end = 1; end <= tokens.size(); ++end) {
    if (end < tokens.size() && mask[end] == mask[end - 1]) continue;
    const std::string text = tokenizer.decode(tokens.first(end));
    const size_t begin = std::min(written, text.size());
    marked.write(std::string_view(text).substr(begin), mask[end - 1] != 0 ? '+' : '-');
    written = text.size();
  }
  marked.end_line();
}

void show_document(const TokenStore& store, const Tokenizer& tokenizer, int64_t document, int64_t limit,
                   std::ostream& out) {
  const int64_t begin = store.document_offsets()[static_cast<size_t>(document)],
                length = store.document_offsets()[static_cast<size_t>(document) + 1] - begin,
                shown = limit > 0 ? std::min(limit, length) : length;
  std::vector<Token> tokens(static_cast<size_t>(shown));
  store.read(begin, tokens);
  std::vector<uint8_t> mask(static_cast<size_t>(length), 1);
  if (store.has_loss_mask()) store.read_loss_mask(begin, mask);
  out << "document " << document << ": " << length << " tokens, " << std::ranges::count(mask, uint8_t{1})
      << " of them labels\n";
  write_text(tokenizer, tokens, mask, out);
  if (shown < length) out << "  ... " << length - shown << " more tokens\n";
}

}  // namespace

void show_documents(const TokenStore& store, const Tokenizer& tokenizer, const ShowOptions& options,
                    std::ostream& out) {
  const StoreAbout& about = store.about();
  check<DataError>(tokenizer.fingerprint() == about.tokenizer_fingerprint, store.name(), ": made with ",
                   one_line(about.tokenizer_name, 100), " of fingerprint ",
                   one_line(about.tokenizer_fingerprint, 100), ", found ", tokenizer.name(),
                   " of fingerprint ", tokenizer.fingerprint());
  const auto documents = static_cast<int64_t>(store.document_offsets().size()) - 1;
  check<DataError>(options.first < documents, store.name(), ": no document ", options.first,
                   ", allowed: 0 to ", documents - 1);
  for (int64_t i = options.first; i < std::min(documents, options.first + options.documents); ++i)
    show_document(store, tokenizer, i, options.tokens, out);
}

}  // namespace longreach::data
