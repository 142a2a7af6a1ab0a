#include "train/native_export.h"

#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>

#include "checkpoints/new_folder.h"
#include "train/finite.h"
#include "train/merge_adapters.h"
#include "train/probe_logits.h"

namespace longreach {
namespace {

CheckpointContents contents_of(const SavedModel& saved) {
  CheckpointContents contents{.step = saved.step, .texts = saved.texts};
  RunConfig config = parse_saved_config(saved.texts.at("config.toml"), saved.path + "/config.toml");
  config.adapter = saved.config.adapter;
  config.exports = {};
  contents.texts["config.toml"] = to_toml(fields_of(config));
  contents.texts.erase("state.json");  // a run starts from it, none goes on
  if (saved.tokenizer)
    contents.texts["state.json"] = nlohmann::json{{"tokenizer", saved.tokenizer->fingerprint()}}.dump();
  for (const auto& [name, tensor] : model_tensors(*saved.model))
    if (config.adapter.present() || !is_adapter_parameter(name)) contents.model.emplace_back(name, tensor);
  return contents;
}

SavedModel finite_model(const std::string& checkpoint) {
  SavedModel saved = load_saved_model(checkpoint);
  expect_finite<CheckpointError>(model_tensors(*saved.model), one_line(checkpoint));
  return saved;
}

void print_difference(const NativeCheckpoint& written) {
  std::cout << "logits     of 64 tokens, read back: largest error " << written.difference
            << " of the largest\n";
}

}  // namespace

NativeCheckpoint write_native(const std::function<SavedModel()>& open, const std::string& folder,
                              const NativeExport& options) {
  const NewFolder output(folder);
  NativeCheckpoint written;
  at::Tensor before;
  {
    const SavedModel saved = open();
    const CheckpointContents contents = contents_of(saved);
    before = probe_logits(*saved.model);
    const std::filesystem::path step = save_checkpoint(output.path(), contents);
    written.path = folder + "/" + step.filename().string();
  }
  const SavedModel read = load_saved_model(output.path());
  if (!options.allow_nonfinite || before.isfinite().all().item<bool>())
    written.difference = expect_same_logits(before, probe_logits(*read.model), options.limit, folder);
  output.publish();
  return written;
}

void export_native(const std::string& checkpoint, const std::string& folder) {
  print_difference(write_native([&] { return finite_model(checkpoint); }, folder));
}

void export_merged(const std::string& checkpoint, const std::string& folder) {
  const auto merged = [&] {
    SavedModel saved = finite_model(checkpoint);
    saved.config.adapter.expect_present(checkpoint);
    merge_adapters(*saved.model);
    saved.config.adapter = {};
    return saved;
  };
  print_difference(write_native(merged, folder, {.limit = kOrderOfSums}));
}

}  // namespace longreach
