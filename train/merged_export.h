// A model with its adapters merged in, for others.
#pragma once
#include <string>

namespace longreach {

// Writes folder/step-NNNNNNNN, a checkpoint like the one at `checkpoint` whose weights hold W + scale B A and
// whose config has no adapters; the optimizer stays behind. The folder appears whole or not at all. Throws
// ConfigError when the model has no adapters, CheckpointError when the folder exists and is not empty, or
// cannot be written.
void write_merged(const std::string& checkpoint, const std::string& folder);

}  // namespace longreach
