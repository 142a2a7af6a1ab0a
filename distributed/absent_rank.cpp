#include "distributed/absent_rank.h"

#include <algorithm>
#include <stdexcept>

namespace longreach {
namespace {

class AbsentRank final : public Communicator {
 public:
  AbsentRank(int rank, int ranks) : Communicator({}), rank_(rank), ranks_(ranks) {}

  int rank() const override { return rank_; }
  int size() const override { return ranks_; }
  Group split(const std::vector<int>& members) override {
    return absent_rank(place_in(members), static_cast<int>(members.size()));
  }

 private:
  std::unique_ptr<Exchange::Work> start_all_to_all(AllToAll exchange) override { refuse(exchange.label); }
  std::unique_ptr<Exchange::Work> start_all_gather(AllGather exchange) override { refuse(exchange.label); }

  [[noreturn]] static void refuse(const std::string& label) {
    throw std::logic_error("\"" + label + "\" of a rank that is not here");
  }

  int rank_, ranks_;
};

}  // namespace

Group absent_rank(int rank, int ranks) { return std::make_shared<AbsentRank>(rank, ranks); }

std::vector<int> ranks_to_ask(int ranks) {
  const int asked = std::min(ranks, 8);
  std::vector<int> result;
  for (int i = 0; i < asked; ++i) result.push_back(asked == 1 ? 0 : i * (ranks - 1) / (asked - 1));
  return result;
}

}  // namespace longreach
