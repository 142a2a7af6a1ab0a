// Which old checkpoints of a run may be deleted: only in favour of newer ones that are known to be whole.
#pragma once
#include <cstdint>
#include <set>
#include <string>

#include "checkpoints/write_point.h"

namespace longreach {

class Retention {
 public:
  // keep: whole checkpoints that stay under root; 0: all.
  Retention(std::string root, int64_t keep) : root_(std::move(root)), keep_(keep) {}

  // The run goes on from this step, which has just been verified. It stays until two newer ones are written.
  void resumed_from(int64_t step);

  // A checkpoint of this step has just been written: deletes leftovers of interrupted saves and what is older
  // than the newest `keep` whole ones. What this process has neither written nor read is verified first,
  // once. Throws CheckpointError.
  void saved(int64_t step, const WritePoint& point = {});

 private:
  bool is_whole(int64_t step, const std::string& folder);

  const std::string root_;
  const int64_t keep_;
  std::set<int64_t> whole_, broken_;  // steps of which this process knows
  int64_t resumed_ = -1, saves_since_ = 0;
};

}  // namespace longreach
