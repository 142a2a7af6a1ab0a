// The tokenizer that a user names, as files that data/ reads.
#pragma once
#include <memory>
#include <optional>
#include <string>

#include "core/temporary_folder.h"
#include "data/tokenizers/tokenizer.h"

namespace longreach {

// spec: as data::load_tokenizer takes it, or a GGUF file: what lies inside it is written to a folder that
// goes with the object. Throws CheckpointError naming the file for a GGUF file without a tokenizer.
class TokenizerFolder {
 public:
  explicit TokenizerFolder(const std::string& spec);

  // As data::load_tokenizer takes it.
  const std::string& path() const { return path_; }
  std::unique_ptr<data::Tokenizer> load() const { return data::load_tokenizer(path_); }

 private:
  std::optional<TemporaryFolder> inside_;
  std::string path_;
};

}  // namespace longreach
