// Cutting and filling rows; see packing.h for the rules.
#include "data/packing.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "core/error.h"
#include "data/random.h"

namespace longreach::data {
namespace {

// Streams of the counter-based generator; one a purpose.
enum Stream : uint64_t { kOrder = 1, kOffset = 2, kMixture = 3 };

std::vector<int64_t> borders_of_whole_documents(const std::vector<int64_t>& offsets, int64_t seq_len) {
  std::vector<int64_t> borders{0};
  for (size_t i = 1; i < offsets.size(); ++i) {
    const int64_t begin = offsets[i - 1], end = offsets[i];
    if (end - borders.back() <= seq_len) continue;  // fits the open row
    if (begin > borders.back()) borders.push_back(begin);
    while (end - borders.back() > seq_len) borders.push_back(borders.back() + seq_len);
  }
  borders.push_back(offsets.back());
  return borders;
}

}  // namespace

RowPlan::RowPlan(const TokenSource& source, const LoaderOptions& options)
    : tokens_(source.num_tokens()), seq_len_(options.seq_len), rows_((tokens_ + seq_len_ - 1) / seq_len_) {
  check<DataError>(tokens_ > 0, source.name(), ": has no tokens");
  if (options.varlen && source.has_loss_mask()) {
    borders_ = borders_of_whole_documents(source.document_offsets(), seq_len_);
    rows_ = static_cast<int64_t>(borders_.size()) - 1;
  }
}

TokenRange RowPlan::row_in_order(int64_t index) const {
  if (!borders_.empty()) {
    const auto i = static_cast<size_t>(index);
    return {borders_[i], borders_[i + 1] - borders_[i]};
  }
  return {index * seq_len_, std::min(seq_len_, tokens_ - index * seq_len_)};
}

std::vector<TokenRange> RowPlan::random_row(uint64_t seed, uint64_t index) const {
  const auto rows = static_cast<uint64_t>(rows_);
  const uint64_t epoch = index / rows;
  const Permutation order(rows, random_bits(seed, kOrder, epoch));
  const auto place = static_cast<int64_t>(order(index % rows));
  if (!borders_.empty()) return {row_in_order(place)};
  const auto offset =
      static_cast<int64_t>(scale_to(random_bits(seed, kOffset, epoch), static_cast<uint64_t>(tokens_)));
  int64_t begin = (offset + place * seq_len_) % tokens_;
  std::vector<TokenRange> ranges;
  for (int64_t left = seq_len_; left > 0;) {
    const int64_t length = std::min(left, tokens_ - begin);
    ranges.push_back({begin, length});
    left -= length;
    begin = 0;
  }
  return ranges;
}

namespace {

class RowFiller {
 public:
  RowFiller(const TokenSource& source, const LoaderOptions& options, TokenBatch& batch)
      : source_(source),
        options_(options),
        batch_(batch),
        row_begin_(static_cast<int64_t>(batch.tokens.size())) {
    if (batch.cu_seqlens.empty()) batch.cu_seqlens.push_back(0);
  }

  void range(const TokenRange& range) {
    const int64_t end = range.begin + range.length;
    const auto ahead = static_cast<size_t>(std::min(end + 1, source_.num_tokens()) - range.begin);
    tokens_.resize(ahead);
    source_.read(range.begin, tokens_);
    mask_.assign(ahead, 1);
    if (source_.has_loss_mask()) source_.read_loss_mask(range.begin, mask_);
    const auto& offsets = source_.document_offsets();
    auto border = std::upper_bound(offsets.begin(), offsets.end(), range.begin);
    for (int64_t at = range.begin; at < end; ++border) {
      const int64_t document_end = options_.varlen ? *border : source_.num_tokens();
      const int64_t piece_end = std::min(end, document_end);
      piece(at - range.begin, piece_end - range.begin, document_end - range.begin);
      at = piece_end;
    }
  }

  void finish() {
    const int64_t left = options_.seq_len - (static_cast<int64_t>(batch_.tokens.size()) - row_begin_);
    for (int64_t i = 0; i < left; ++i) push(0, kIgnoreLabel, i);
    if (left > 0 || !options_.varlen) close_piece();
    ++batch_.rows;
  }

 private:
  void piece(int64_t begin, int64_t end, int64_t document_end) {
    for (int64_t i = begin; i < end; ++i) {
      const auto next = static_cast<size_t>(i + 1);
      const bool labelled = i + 1 < document_end && mask_[next] != 0;
      push(tokens_[static_cast<size_t>(i)], labelled ? tokens_[next] : kIgnoreLabel, i - begin);
    }
    if (options_.varlen) close_piece();
  }

  void push(int64_t token, int64_t label, int64_t position) {
    const int64_t in_row = static_cast<int64_t>(batch_.tokens.size()) - row_begin_;
    batch_.tokens.push_back(token);
    batch_.labels.push_back(label);
    batch_.positions.push_back(options_.varlen ? position : in_row);
  }

  void close_piece() {
    const auto end = static_cast<int32_t>(batch_.tokens.size());
    if (batch_.cu_seqlens.back() != end) batch_.cu_seqlens.push_back(end);
  }

  const TokenSource& source_;
  const LoaderOptions& options_;
  TokenBatch& batch_;
  int64_t row_begin_;
  std::vector<Token> tokens_;
  std::vector<uint8_t> mask_;
};

}  // namespace

void append_row(const TokenSource& source, std::span<const TokenRange> ranges, const LoaderOptions& options,
                TokenBatch& batch) {
  RowFiller filler(source, options, batch);
  for (const auto& range : ranges) filler.range(range);
  filler.finish();
}

Mixture::Mixture(std::vector<double> probabilities, uint64_t seed)
    : probabilities_(std::move(probabilities)), seed_(seed) {
  largest_ = static_cast<size_t>(std::max_element(probabilities_.begin(), probabilities_.end()) -
                                 probabilities_.begin());
  // Large enough that the source which takes the remainder never has a negative share of a block.
  block_ = std::bit_ceil(std::max<uint64_t>(1024, 2 * probabilities_.size() * probabilities_.size()));
}

// How many of the first `samples` (a multiple of the block) come from each source.
std::vector<uint64_t> Mixture::drawn_before(uint64_t samples) const {
  std::vector<uint64_t> drawn(probabilities_.size());
  uint64_t others = 0;
  for (size_t i = 0; i < drawn.size(); ++i) {
    if (i == largest_) continue;
    drawn[i] = static_cast<uint64_t>(std::floor(probabilities_[i] * static_cast<double>(samples)));
    others += drawn[i];
  }
  drawn[largest_] = samples - others;
  return drawn;
}

Mixture::Draw Mixture::draw(uint64_t sample) const {
  if (probabilities_.size() == 1) return {0, sample};
  const uint64_t block = sample / block_;
  const auto before = drawn_before(block * block_), after = drawn_before((block + 1) * block_);
  uint64_t slot = Permutation(block_, random_bits(seed_, kMixture, block))(sample % block_);
  for (size_t source = 0; source < before.size(); ++source) {
    const uint64_t share = after[source] - before[source];
    if (slot < share) return {source, before[source] + slot};
    slot -= share;
  }
  throw Error("mixture: shares of a block do not add up");
}

}  // namespace longreach::data
