// Runs of tensors, in a rank's memory and in checkpoints.
#pragma once
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoints/tensor_source.h"
#include "distributed/run.h"

namespace longreach {

// What a rank keeps.
struct RankRuns {
  std::vector<Run> own;     // no other rank that shares the model keeps them
  std::vector<Run> common;  // whole, as all of them keep them
};

std::vector<Run> all_of(const RankRuns& runs);

using MayBeNew = std::function<bool(std::string_view)>;

// Throws CheckpointError that begins with `origin` and names the first run whose tensor is missing, but where
// may_be_new accepts its name, or of another shape. Returns the names that it has accepted.
std::vector<std::string> expect_runs(const TensorSource& from, const std::vector<Run>& to,
                                     const std::string& origin, const MayBeNew& may_be_new = nullptr);

// The same; then fills the runs, and reads nothing else of `from`. What it has accepted stays as it is.
std::vector<std::string> read_runs(const TensorSource& from, const std::vector<Run>& to,
                                   const std::string& origin, const MayBeNew& may_be_new = nullptr);

// Throws CheckpointError naming a tensor of `from` that none of these is a run of.
void expect_no_others(const TensorSource& from, const std::vector<Run>& known, const std::string& origin);

}  // namespace longreach
