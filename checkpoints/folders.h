// Names of checkpoint folders and the steps between them: temporary, set aside, complete.
//
//   step-00000120            complete
//   step-00000120.tmp        being written, or being deleted
//   step-00000120.old.tmp    set aside while a new one of the same step takes its place (file systems that
//   cannot exchange)
#pragma once
#include <cstdint>
#include <string>

namespace longreach {

std::string step_folder(const std::string& root, int64_t step);

// Puts root/step-N.tmp in the place of root/step-N, in one step where the file system can, and makes it
// durable. Throws CheckpointError; then the old one, if any, is in its place.
void publish_folder(const std::string& root, int64_t step);

// Brings back what an interrupted publish set aside; best effort, for readers: they must not touch a save in
// progress.
void restore_set_aside(const std::string& root);

// The writer's: restores as above, then deletes the rest of step-*.tmp. Throws CheckpointError.
void clean_leftovers(const std::string& root);

// Deletes root/step-N so that an interruption never leaves half of it under its name. Throws CheckpointError.
void remove_step(const std::string& root, int64_t step);

}  // namespace longreach
