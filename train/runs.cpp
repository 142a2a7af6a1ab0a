#include "train/runs.h"

#include <ATen/core/grad_mode.h>

#include <set>

#include "core/error.h"

namespace longreach {

std::vector<Run> all_of(const RankRuns& runs) {
  std::vector<Run> all = runs.own;
  all.insert(all.end(), runs.common.begin(), runs.common.end());
  return all;
}

std::vector<std::string> expect_runs(const TensorSource& from, const std::vector<Run>& to,
                                     const std::string& origin, const MayBeNew& may_be_new) {
  std::vector<std::string> added;
  for (const Run& run : to) {
    if (!from.contains(run.name) && may_be_new && may_be_new(run.name)) {
      added.push_back(run.name);
      continue;
    }
    check<CheckpointError>(from.contains(run.name), origin, ": is of another model: it holds no ", run.name);
    check<CheckpointError>(from.shape(run.name) == run.shape, origin, ": is of another model: ", run.name,
                           " has shape ", at::IntArrayRef(from.shape(run.name)), ", this config makes ",
                           at::IntArrayRef(run.shape));
  }
  return added;
}

std::vector<std::string> read_runs(const TensorSource& from, const std::vector<Run>& to,
                                   const std::string& origin, const MayBeNew& may_be_new) {
  const at::NoGradGuard no_grad;
  auto added = expect_runs(from, to, origin, may_be_new);
  for (const Run& run : to)
    if (from.contains(run.name))
      run.values.detach().copy_(from.run(run.name, run.begin, run.values.numel()).view_as(run.values));
  return added;
}

void expect_no_others(const TensorSource& from, const std::vector<Run>& known, const std::string& origin) {
  std::set<std::string> names;
  for (const Run& run : known) names.insert(run.name);
  for (const std::string& name : from.names())
    check<CheckpointError>(names.count(name) > 0, origin, ": is of another model: this config has no ", name);
}

}  // namespace longreach
