#include "distributed/span_balance.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace longreach {
namespace {

// Predicted cost of the dearest rank over the mean, with which more spans a rank are not worth their pieces.
constexpr double kSmallImbalance = 1.03;
constexpr int kMostSpans = 8;
// A border moves by at most this part of a span's length: tokens of a rank are memory.
constexpr int64_t kPartMoved = 4;
constexpr int kSweeps = 16;

size_t index(int rank) { return static_cast<size_t>(rank); }

class Dealer {
 public:
  Dealer(const std::vector<int32_t>& cu_seqlens, int ranks, int64_t grain, const Cost& cost)
      : cu_seqlens_(cu_seqlens), ranks_(ranks), grain_(grain), cost_(cu_seqlens, cost) {}

  // Spans of about equal length. one_behind_the_other: contiguous; else one from the front with one from the
  // back.
  std::vector<Span> equal(int per_rank, bool one_behind_the_other) const {
    const int count = per_rank * ranks_;
    std::vector<Span> spans;
    int64_t begin = 0;
    for (int i = 0; i < count; ++i) {
      const int64_t end = i + 1 == count ? total() : std::max(begin, nearest_cut(total() * (i + 1) / count));
      const int mirrored = i < ranks_ ? i : count - 1 - i;
      if (end > begin) spans.push_back({begin, end, one_behind_the_other ? i : mirrored});
      begin = end;
    }
    return spans;
  }

  std::vector<Span> by_cost() const {
    std::vector<Span> best;
    double least = 0;
    for (int per_rank = 1; per_rank <= kMostSpans && (best.empty() || least > kSmallImbalance); ++per_rank) {
      std::vector<Span> spans = equal(per_rank, false);
      give_to_the_least_loaded(spans, per_rank);
      move_borders(spans, total() / (per_rank * ranks_) / kPartMoved);
      const double found = cost_.imbalance(spans, ranks_);
      if (!best.empty() && found >= least) continue;
      best = std::move(spans);
      least = found;
    }
    return best;
  }

 private:
  int64_t total() const { return cu_seqlens_.back(); }

  // The place nearest to `wanted` where a span may begin.
  int64_t nearest_cut(int64_t wanted) const {
    const auto next = std::upper_bound(cu_seqlens_.begin(), cu_seqlens_.end(), wanted);
    if (next == cu_seqlens_.begin() || next == cu_seqlens_.end()) return total();
    const int64_t begin = *(next - 1), end = *next;
    const int64_t below = begin + (wanted - begin) / grain_ * grain_, above = std::min(below + grain_, end);
    return wanted - below <= above - wanted ? below : above;
  }

  // The dearest span first, to the rank that has least and room for one more.
  void give_to_the_least_loaded(std::vector<Span>& spans, int per_rank) const {
    std::vector<double> cost;
    for (const Span& span : spans) cost.push_back(cost_.of(span));
    std::vector<size_t> order(spans.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return cost[a] > cost[b]; });
    std::vector<double> load(index(ranks_), 0.0);
    std::vector<int> held(index(ranks_), 0);
    for (const size_t i : order) {
      int owner = -1;
      for (int rank = 0; rank < ranks_; ++rank)
        if (held[index(rank)] < per_rank && (owner < 0 || load[index(rank)] < load[index(owner)]))
          owner = rank;
      spans[i].owner = owner;
      load[index(owner)] += cost[i];
      ++held[index(owner)];
    }
  }

  // Where a border between two ranks would part their cost equally, as far as the cost of a grain here tells.
  int64_t fair_cut(int64_t border, double left_over_right) const {
    const int64_t from = std::max<int64_t>(0, border - grain_), to = std::min(total(), border + grain_);
    const double a_token = (cost_.before(to) - cost_.before(from)) / static_cast<double>(to - from);
    if (!(a_token > 0)) return border;
    const double tokens = std::clamp(left_over_right / 2 / a_token, -static_cast<double>(total()),
                                     static_cast<double>(total()));
    const int64_t wanted = border - static_cast<int64_t>(std::llround(tokens));
    return nearest_cut(std::clamp<int64_t>(wanted, 0, total()));
  }

  // Moves each border between spans of two ranks, by at most `most` tokens from where it was, while the
  // dearer of the two gets cheaper.
  void move_borders(std::vector<Span>& spans, int64_t most) const {
    const std::vector<Span> equal = spans;
    std::vector<double> load = cost_.loads(spans, ranks_);
    bool moved = true;
    for (int sweep = 0; sweep < kSweeps && moved && cost_.imbalance(spans, ranks_) > kSmallImbalance;
         ++sweep) {
      moved = false;
      for (size_t i = 0; i + 1 < spans.size(); ++i) {
        Span &left = spans[i], &right = spans[i + 1];
        double &of_left = load[index(left.owner)], &of_right = load[index(right.owner)];
        const int64_t border = left.end, cut = fair_cut(border, of_left - of_right);
        if (left.owner == right.owner || cut <= left.begin || cut >= right.end ||
            std::abs(cut - equal[i].end) > most)
          continue;
        const double more = cost_.before(cut) - cost_.before(border);
        if (std::max(of_left + more, of_right - more) >= std::max(of_left, of_right)) continue;
        left.end = right.begin = cut;
        of_left += more;
        of_right -= more;
        moved = true;
      }
    }
  }

  const std::vector<int32_t>& cu_seqlens_;
  int ranks_;
  int64_t grain_;
  RowCost cost_;
};

}  // namespace

RowCost::RowCost(const std::vector<int32_t>& cu_seqlens, const Cost& cost)
    : cu_seqlens_(cu_seqlens), cost_(cost), before_document_{0.0} {
  for (size_t d = 0; d + 1 < cu_seqlens.size(); ++d)
    before_document_.push_back(before_document_.back() + cost(cu_seqlens[d + 1] - cu_seqlens[d]));
}

double RowCost::before(int64_t token) const {
  const auto next = std::upper_bound(cu_seqlens_.begin(), cu_seqlens_.end(), token);
  const auto document = static_cast<size_t>(next - cu_seqlens_.begin()) - 1;
  return before_document_[document] + cost_(token - cu_seqlens_[document]);
}

std::vector<double> RowCost::loads(const std::vector<Span>& spans, int ranks) const {
  std::vector<double> load(index(ranks), 0.0);
  for (const Span& span : spans) load[index(span.owner)] += of(span);
  return load;
}

double RowCost::imbalance(const std::vector<Span>& spans, int ranks) const {
  const std::vector<double> load = loads(spans, ranks);
  return all() == 0 ? 1 : *std::max_element(load.begin(), load.end()) * ranks / all();
}

std::vector<Span> deal_out(const std::vector<int32_t>& cu_seqlens, int ranks, int64_t grain, Balance balance,
                           const Cost& cost) {
  const Dealer dealer(cu_seqlens, ranks, grain, cost);
  if (balance == Balance::ptrr) return dealer.by_cost();
  return dealer.equal(balance == Balance::none ? 1 : 2, balance == Balance::none);
}

}  // namespace longreach
