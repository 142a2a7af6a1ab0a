// Witten-Bell byte n-grams over one hash table of contexts of every length.
#include "data/ngram.h"

#include <cmath>

#include "core/error.h"
#include "data/random.h"

namespace longreach::data {
namespace {

// A string of up to 7 bytes as a number that tells strings of different lengths apart and is never 0.
uint64_t key_of(uint64_t bytes, int length) {
  return (bytes & ((uint64_t{1} << (8 * length)) - 1)) | static_cast<uint64_t>(length + 1) << 56;
}

// Contexts and contexts plus byte are kept apart by one bit.
constexpr uint64_t kContext = uint64_t{1} << 63;

}  // namespace

ByteNgram::ByteNgram(int order) : order_(order), table_(1 << 16) {
  check<DataError>(order >= 0 && order <= 6, "n-gram of order ", order, ", allowed: 0 to 6");
}

ByteNgram::Entry& ByteNgram::slot(uint64_t key) {
  if (used_ * 2 > table_.size()) grow();
  size_t at = mix(key) & (table_.size() - 1);
  while (table_[at].key != 0 && table_[at].key != key) at = (at + 1) & (table_.size() - 1);
  if (table_[at].key == 0) {
    table_[at].key = key;
    ++used_;
  }
  return table_[at];
}

const ByteNgram::Entry* ByteNgram::find(uint64_t key) const {
  size_t at = mix(key) & (table_.size() - 1);
  while (table_[at].key != 0 && table_[at].key != key) at = (at + 1) & (table_.size() - 1);
  return table_[at].key == 0 ? nullptr : &table_[at];
}

void ByteNgram::grow() {
  std::vector<Entry> old(table_.size() * 2);
  old.swap(table_);
  for (const Entry& entry : old) {
    if (entry.key == 0) continue;
    size_t at = mix(entry.key) & (table_.size() - 1);
    while (table_[at].key != 0) at = (at + 1) & (table_.size() - 1);
    table_[at] = entry;
  }
}

void ByteNgram::add(std::string_view bytes, bool begins_document) {
  if (begins_document) history_length_ = 0;
  for (const char c : bytes) {
    const uint64_t extended = history_ << 8 | static_cast<unsigned char>(c);
    for (int length = 0; length <= history_length_; ++length) {
      const bool first = slot(key_of(extended, length + 1)).count++ == 0;
      Entry& context = slot(key_of(history_, length) | kContext);
      ++context.count;
      context.followers += first ? 1 : 0;
    }
    history_ = extended;
    if (history_length_ < order_) ++history_length_;
  }
}

double ByteNgram::bits(std::string_view bytes, bool begins_document) {
  if (begins_document) history_length_ = 0;
  double total = 0;
  for (const char c : bytes) {
    const uint64_t extended = history_ << 8 | static_cast<unsigned char>(c);
    double p = 1.0 / 256;
    for (int length = 0; length <= history_length_; ++length) {
      const Entry* context = find(key_of(history_, length) | kContext);
      if (context == nullptr) break;  // longer contexts were not seen either
      const Entry* seen = find(key_of(extended, length + 1));
      const auto count = seen == nullptr ? 0.0 : static_cast<double>(seen->count);
      p = (count + context->followers * p) / (static_cast<double>(context->count) + context->followers);
    }
    total -= std::log2(p);
    history_ = extended;
    if (history_length_ < order_) ++history_length_;
  }
  return total;
}

double ngram_bits_per_byte(const Corpus& corpus, int order,
                           const std::function<void(int64_t bytes)>& progress) {
  ByteNgram model(order);
  double bits = 0;
  int64_t bytes_counted = 0, bytes_coded = 0;
  for_each_text(corpus.train, *corpus.tokenizer, [&](std::string_view bytes, bool begins) {
    model.add(bytes, begins);
    progress(bytes_counted += static_cast<int64_t>(bytes.size()));
  });
  for_each_text(corpus.valid, *corpus.tokenizer, [&](std::string_view bytes, bool begins) {
    bits += model.bits(bytes, begins);
    progress(bytes_counted + (bytes_coded += static_cast<int64_t>(bytes.size())));
  });
  check<DataError>(bytes_coded > 0, "n-gram baseline: there is no held-out text");
  return bits / static_cast<double>(bytes_coded);
}

}  // namespace longreach::data
