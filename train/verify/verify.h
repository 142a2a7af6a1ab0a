// Runs reference-vector files and compares everything in them.
#pragma once
#include <ATen/core/Tensor.h>

#include <iosfwd>
#include <optional>
#include <string>
#include <vector>

#include "layers/ops/common/implementation.h"

namespace longreach::verify {

struct Options {
  // Nothing: the reference in float64, then the fused path in `dtype`.
  std::optional<Implementation> implementation;
  std::optional<at::ScalarType> dtype;  // default: float64 for the reference, float32 for the fused path
};

// The outcome for one tensor of a file.
struct TensorResult {
  std::string name;  // with prefix
  bool failed = false;
  bool unknown = false;         // failed: nothing of this name is an input or a result of the mechanism
  double error = 0, limit = 0;  // relative
  double rms = 0, floor = 0;    // absolute; the floor lets pass what is beyond the limit
  std::string why;              // of a failure
  bool by_floor() const { return !failed && error > limit; }
};

struct RunResult {
  Implementation implementation;
  at::ScalarType dtype;
  std::vector<TensorResult> tensors;
  std::string failure;  // of the file as a whole; empty otherwise
};

// Throws UnknownCase, CheckpointError or DataError.
std::vector<RunResult> verify_file(const std::string& path, const Options& options);

// Verifies all files, and of a folder the .safetensors files below it; prints one line a tensor and the last
// line `N files, M tensors, F failed`. Returns the exit code: 0, 1 when something failed, 2 when a file could
// not be read or is of an unknown mechanism or config, or holds a tensor that is
// nothing of its mechanism's. Throws DataError, before anything runs, for a folder without such files.
int verify_files(const std::vector<std::string>& paths, const Options& options, std::ostream& out,
                 std::ostream& errors);

}  // namespace longreach::verify
