// Copies of reference vectors with something changed, and what `verify` says of them.
#pragma once
#include <map>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "checkpoints/safetensors.h"
#include "tests/support/files.h"
#include "tests/support/vectors.h"
#include "train/verify/verify.h"

namespace longreach::test {

struct Outcome {
  int code = 0;
  std::string out, errors;
  std::string last_line() const { return out.substr(out.rfind('\n', out.size() - 2) + 1); }
};

inline Outcome outcome_of(const std::vector<std::string>& paths, const verify::Options& options = {}) {
  std::ostringstream out, errors;
  Outcome outcome;
  outcome.code = verify::verify_files(paths, options, out, errors);
  outcome.out = out.str();
  outcome.errors = errors.str();
  return outcome;
}

// A copy of a vector file with its tensors and metadata changed.
struct Edited {
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  std::map<std::string, std::string> metadata;

  explicit Edited(const std::string& name) {
    const SafetensorsFile file(vector_path(name));
    for (const auto& [key, entry] : file.entries()) tensors.emplace_back(key, file.tensor(key));
    metadata = file.metadata();
  }
  at::Tensor& operator[](const std::string& name) {
    for (auto& [key, tensor] : tensors)
      if (key == name) return tensor;
    return tensors.emplace_back(name, at::Tensor()).second;
  }
  void drop(const std::string& prefix) {
    std::erase_if(tensors, [&](const auto& entry) { return entry.first.starts_with(prefix); });
  }
  Outcome verify(const verify::Options& options = {}) const {
    TemporaryFolder folder;
    const std::string path = folder.path("edited.safetensors");
    write_safetensors(path, tensors, metadata);
    return outcome_of({path}, options);
  }
};

}  // namespace longreach::test
