#include "checkpoints/retention.h"

#include "checkpoints/checkpoint.h"
#include "checkpoints/folders.h"
#include "core/error.h"

namespace longreach {

void Retention::resumed_from(int64_t step) {
  resumed_ = step;
  saves_since_ = 0;
  whole_.insert(step);
}

bool Retention::is_whole(int64_t step, const std::string& folder) {
  if (whole_.count(step) || broken_.count(step)) return whole_.count(step) > 0;
  try {
    verify_checkpoint(folder);
    const CheckpointReader fits(folder);
    return whole_.insert(step).second;
  } catch (const CheckpointError&) {
    broken_.insert(step);
    return false;
  }
}

void Retention::saved(int64_t step, const WritePoint& point) {
  whole_.insert(step);
  broken_.erase(step);
  if (++saves_since_ > 1) resumed_ = -1;
  clean_leftovers(root_);
  const auto all = list_checkpoints(root_);
  if (keep_ <= 0 || static_cast<int64_t>(all.size()) <= keep_) return;
  int64_t kept = 0;
  for (auto at = all.rbegin(); at != all.rend(); ++at) {
    if (at->first > step) continue;  // no checkpoint of this run's past: neither counts nor goes
    if (kept < keep_) {
      kept += is_whole(at->first, at->second);
    } else if (at->first != resumed_) {
      remove_step(root_, at->first, point);
      whole_.erase(at->first);
    }
  }
}

}  // namespace longreach
