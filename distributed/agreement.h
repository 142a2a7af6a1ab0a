// Small things that all ranks must see alike. Every rank of the group calls the same function at the same
// place; a null group is one rank.
#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "distributed/communicator.h"

namespace longreach {

// Element by element, in the order of ranks. All give equally many.
std::vector<int64_t> sum_over(const Group& group, std::vector<int64_t> values, std::string_view label);
std::vector<double> sum_over(const Group& group, std::vector<double> values, std::string_view label);
int64_t largest_over(const Group& group, int64_t value, std::string_view label);

// Of all ranks, in their order; `values` may have another length on each.
std::vector<std::vector<double>> gather(const Group& group, const std::vector<double>& values,
                                        std::string_view label);
std::vector<std::vector<int64_t>> gather(const Group& group, const std::vector<int64_t>& values,
                                         std::string_view label);
std::vector<std::string> gather(const Group& group, const std::string& value, std::string_view label);

// Runs `work` on rank 0 while the others wait, however long it takes, as long as rank 0 lives. When it
// throws, all throw: rank 0 its own error, the others one of the same kind (UserError or not) that quotes it.
// Nothing else may use the group meanwhile.
void on_first_rank(const Group& group, const std::function<void()>& work);

// Runs `work` on all ranks, however long it takes on each, as long as all live. When it throws on some, all
// throw: those their own error, the others one of the same kind that quotes the first of them. Nothing else
// may use the group meanwhile.
void on_every_rank(const Group& group, const std::function<void()>& work);

// What work() gives, on every rank: first on rank 0, which may leave files that the others then find.
template <class Work>
auto first_rank_first(const Group& group, const Work& work) {
  std::optional<decltype(work())> result;
  on_first_rank(group, [&] { result.emplace(work()); });
  if (!result) result.emplace(work());
  return std::move(*result);
}

}  // namespace longreach
