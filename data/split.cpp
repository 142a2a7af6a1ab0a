// Train and held-out views over one source; no token is copied.
#include "data/split.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "data/common/fingerprint.h"

namespace longreach::data {
namespace {

constexpr int64_t kFewDocuments = 1000;

class Slice : public TokenSource {
 public:
  Slice(std::shared_ptr<const TokenSource> source, const std::vector<std::pair<int64_t, int64_t>>& ranges)
      : source_(std::move(source)), offsets_{0} {
    for (const auto& [begin, end] : ranges) {
      if (begin == end) continue;
      const bool continues =
          !runs_.empty() && runs_.back().source_begin + num_tokens() - runs_.back().begin == begin;
      if (!continues) runs_.push_back({num_tokens(), begin});
      offsets_.push_back(num_tokens() + end - begin);
    }
  }
  int64_t num_tokens() const override { return offsets_.back(); }
  const std::vector<int64_t>& document_offsets() const override { return offsets_; }
  bool has_loss_mask() const override { return source_->has_loss_mask(); }
  std::string name() const override { return source_->name(); }
  std::string fingerprint() const override {
    Hasher hasher;
    const std::string source = source_->fingerprint();
    hasher.add(source.data(), source.size());
    for (const Run& run : runs_) hasher.add(&run, sizeof run);
    hasher.add(offsets_);
    return hasher.hex();
  }
  void read(int64_t begin, std::span<Token> out) const override {
    each_run(begin, out, [&](int64_t at, std::span<Token> part) { source_->read(at, part); });
  }
  void read_loss_mask(int64_t begin, std::span<uint8_t> out) const override {
    each_run(begin, out, [&](int64_t at, std::span<uint8_t> part) { source_->read_loss_mask(at, part); });
  }

 private:
  struct Run {  // documents that follow one another in the source too: one read
    int64_t begin, source_begin;
  };

  template <class T, class Read>
  void each_run(int64_t begin, std::span<T> out, const Read& read) const {
    const auto count = static_cast<int64_t>(out.size());
    check(begin >= 0 && begin + count <= num_tokens(), name(), ": tokens ", begin, " to ", begin + count,
          " of ", num_tokens());
    auto run = std::upper_bound(runs_.begin(), runs_.end(), begin,
                                [](int64_t at, const Run& r) { return at < r.begin; });
    for (; !out.empty(); ++run) {
      const Run& current = *std::prev(run);
      const int64_t end = run == runs_.end() ? num_tokens() : run->begin;
      const auto now = static_cast<size_t>(std::min<int64_t>(end - begin, static_cast<int64_t>(out.size())));
      read(current.source_begin + begin - current.begin, out.first(now));
      out = out.subspan(now);
      begin += static_cast<int64_t>(now);
    }
  }

  std::shared_ptr<const TokenSource> source_;
  std::vector<int64_t> offsets_;
  std::vector<Run> runs_;
};

}  // namespace

std::shared_ptr<const TokenSource> slice(std::shared_ptr<const TokenSource> source,
                                         const std::vector<std::pair<int64_t, int64_t>>& ranges) {
  return std::make_shared<Slice>(std::move(source), ranges);
}

Split hold_out(std::shared_ptr<const TokenSource> source, double valid_fraction, bool documents_are_files) {
  if (valid_fraction == 0) return {std::move(source), nullptr};
  const auto& offsets = source->document_offsets();
  const auto documents = static_cast<int64_t>(offsets.size()) - 1;
  const auto share = [&](int64_t n) {
    return static_cast<int64_t>(std::floor(static_cast<double>(n) * valid_fraction));
  };
  const bool each = !source->has_loss_mask() && (documents_are_files || documents < kFewDocuments);
  const int64_t held_documents = each ? 0 : std::max<int64_t>(share(documents), 1);
  std::vector<std::pair<int64_t, int64_t>> train, valid;
  for (int64_t i = 0; i < documents; ++i) {
    const int64_t begin = offsets[static_cast<size_t>(i)], end = offsets[static_cast<size_t>(i) + 1];
    const int64_t cut = each ? end - share(end - begin) : i < documents - held_documents ? end : begin;
    train.emplace_back(begin, cut);
    valid.emplace_back(cut, end);
  }
  Split split{slice(source, train), slice(source, valid)};
  check<DataError>(split.train->num_tokens() > 0 && split.valid->num_tokens() > 0, source->name(), ": ",
                   documents, " documents with ", source->num_tokens(),
                   " tokens are too few to hold out data.valid_fraction = ", valid_fraction);
  return split;
}

}  // namespace longreach::data
