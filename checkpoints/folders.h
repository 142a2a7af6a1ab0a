// Names of checkpoint folders and the steps between them: temporary, set aside, complete.
//
//   step-00000120            complete
//   step-00000120.tmp        being written, or being deleted
//   step-00000120.old.tmp    moved away while a new one of the same step takes its place (file systems that
//   cannot exchange)
//   step-00000120.set-aside  of a run that went on from an earlier step; -2, -3, ... behind it when there is
//                            one
//   already. Nothing lists, loads or deletes it.
#pragma once
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "checkpoints/write_point.h"

namespace longreach {

std::string step_folder(const std::string& root, int64_t step);

// The step that the last part of a path names as a complete checkpoint; -1 for any other name.
int64_t step_named_by(const std::string& folder);

// Puts root/step-N.tmp in the place of root/step-N, in one step where the file system can, and makes it
// durable. Throws CheckpointError; then the old one, if any, is in its place.
void publish_folder(const std::string& root, int64_t step, const WritePoint& point = {});

// Brings back what an interrupted publish moved away; best effort, for readers: they must not touch a save in
// progress.
void restore_replaced(const std::string& root);

// Renames every root/step-M with M > step out of the way, the latest first, and makes that durable. Returns
// old and new paths. Throws CheckpointError.
std::vector<std::pair<std::string, std::string>> set_aside_later(const std::string& root, int64_t step);

// The writer's: restores as above, then deletes the rest of step-*.tmp. Throws CheckpointError.
void clean_leftovers(const std::string& root);

// Deletes root/step-N so that an interruption never leaves half of it under its name. Throws CheckpointError.
void remove_step(const std::string& root, int64_t step, const WritePoint& point = {});

}  // namespace longreach
