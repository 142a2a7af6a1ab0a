#include "train/held_out.h"

#include <unistd.h>

#include <filesystem>

#include "core/temporary_folder.h"
#include "train/tokenizer_folder.h"

namespace longreach {
namespace {

namespace fs = std::filesystem;

// The run folder above a step folder; where the run was begun when the checkpoint lies elsewhere by itself.
fs::path run_folder(const SavedModel& saved) {
  fs::path run = fs::absolute(saved.path).lexically_normal();
  if (!run.has_filename()) run = run.parent_path();  // "step-00000120/"
  run = run.parent_path();
  for (fs::path below = fs::path(saved.config.checkpoint.folder).lexically_normal(); !below.empty();
       below = below.parent_path(), run = run.parent_path())
    if (below.filename() != run.filename()) return saved.config.job.dump_folder;
  std::error_code ignored;
  return fs::exists(run / "config.toml", ignored) ? run : fs::path(saved.config.job.dump_folder);
}

}  // namespace

data::Corpus held_out_corpus(const SavedModel& saved, const std::vector<std::string>& files) {
  saved.expect_tokenizer();
  data::DataConfig data = saved.config.data;
  check<UserError>(!files.empty() || !data.train.empty() || !data.valid.empty(), one_line(saved.path),
                   ": names no text of its own; give some with --data");
  if (!files.empty()) data.valid = files;
  if (!data.valid.empty()) {  // what was trained on is not needed
    data.train = data.valid;
    data.data_probs.clear();
  }
  const TokenizerFolder tokenizer(data.tokenizer);
  data.tokenizer = tokenizer.path();
  const fs::path run = run_folder(saved);
  if (files.empty() || ::access(run.c_str(), W_OK) == 0)
    return data::open_corpus(data, (run / "data").string(), saved.tokenizer);
  const TemporaryFolder stores;  // an open store outlives its name
  return data::open_corpus(data, stores.path(), saved.tokenizer);
}

}  // namespace longreach
