#include "distributed/fetch_plan.h"

#include <algorithm>

#include "core/error.h"

namespace longreach {
namespace {

// Part of a wanted interval that one rank owns, and where it lies among that rank's own tokens.
struct Part {
  int owner = 0;
  int64_t local = 0, tokens = 0;
};

class Owners {
 public:
  explicit Owners(const SequenceLayout& layout) : spans_(layout.spans()), local_(spans_.size()) {
    std::vector<int64_t> held(static_cast<size_t>(layout.ranks()), 0);
    for (size_t i = 0; i < spans_.size(); ++i) {
      int64_t& tokens = held[static_cast<size_t>(spans_[i].owner)];
      local_[i] = tokens;
      tokens += spans_[i].end - spans_[i].begin;
    }
  }

  std::vector<Part> parts_of(const Interval& wanted) const {
    std::vector<Part> parts;
    auto span = std::upper_bound(spans_.begin(), spans_.end(), wanted.begin,
                                 [](int64_t token, const Span& s) { return token < s.end; });
    for (int64_t at = wanted.begin; at < wanted.end; ++span) {
      check<ShapeError>(span != spans_.end() && span->begin <= at, "nobody owns token ", at, " of a row of ",
                        spans_.empty() ? 0 : spans_.back().end);
      const int64_t end = std::min(wanted.end, span->end);
      parts.push_back(
          {span->owner, local_[static_cast<size_t>(span - spans_.begin())] + at - span->begin, end - at});
      at = end;
    }
    return parts;
  }

 private:
  const std::vector<Span>& spans_;
  std::vector<int64_t> local_;  // of each span, where it begins among its owner's tokens
};

}  // namespace

FetchPlan plan_fetch(const SequenceLayout& layout, int rank,
                     const std::function<std::vector<Interval>(int rank)>& wants) {
  const Owners owners(layout);
  const auto ranks = static_cast<size_t>(layout.ranks());
  FetchPlan plan{.send = std::vector<std::vector<Interval>>(ranks),
                 .send_rows = Splits(ranks, 0),
                 .receive_rows = Splits(ranks, 0)};
  std::vector<Part> own;
  for (int wanting = 0; wanting < layout.ranks(); ++wanting) {
    int64_t wanted = 0;
    for (const Interval& interval : wants(wanting)) {
      wanted += interval.size();
      for (const Part& part : owners.parts_of(interval)) {
        if (wanting == rank) own.push_back(part);
        if (part.owner != rank) continue;
        plan.send[static_cast<size_t>(wanting)].push_back({part.local, part.local + part.tokens});
        plan.send_rows[static_cast<size_t>(wanting)] += part.tokens;
      }
    }
    plan.most_wanted = std::max(plan.most_wanted, wanted);
  }
  for (const Part& part : own) plan.receive_rows[static_cast<size_t>(part.owner)] += part.tokens;
  Splits next(ranks, 0);  // where each rank's next part lies in what arrives
  for (size_t r = 1; r < ranks; ++r) next[r] = next[r - 1] + plan.receive_rows[r - 1];
  for (const Part& part : own) {
    int64_t& begin = next[static_cast<size_t>(part.owner)];
    plan.take.push_back({begin, begin + part.tokens});
    begin += part.tokens;
    plan.wanted += part.tokens;
  }
  return plan;
}

}  // namespace longreach
