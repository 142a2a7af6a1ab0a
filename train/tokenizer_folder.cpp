#include "train/tokenizer_folder.h"

#include <filesystem>

#include "checkpoints/formats/foreign_model.h"
#include "core/error.h"

namespace longreach {

TokenizerFolder::TokenizerFolder(const std::string& spec) : path_(spec) {
  if (std::filesystem::is_directory(spec) || !is_foreign_model(spec)) return;
  const auto files = open_foreign_model(spec).tokenizer;
  check<CheckpointError>(!files.empty(), one_line(spec, 500), ": holds no tokenizer");
  inside_.emplace();
  for (const auto& [name, contents] : files) inside_->write(name, contents);
  path_ = inside_->path();
}

}  // namespace longreach
