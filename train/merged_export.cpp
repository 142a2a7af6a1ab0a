#include "train/merged_export.h"

#include "checkpoints/new_folder.h"
#include "train/saved_model.h"

namespace longreach {

void write_merged(const std::string& checkpoint, const std::string& folder) {
  const SavedModel saved = load_saved_model(checkpoint);
  saved.config.adapter.expect_present(checkpoint);
  CheckpointContents contents{.step = saved.step, .texts = saved.texts};
  RunConfig config = parse_saved_config(contents.texts.at("config.toml"), saved.path + "/config.toml");
  config.adapter = {};
  config.exports = {};
  contents.texts["config.toml"] = to_toml(fields_of(config));
  contents.texts.erase("state.json");  // a run starts from it, none goes on
  const auto merged = merged_weights(*saved.model);
  for (const auto& [name, tensor] : model_tensors(*saved.model)) {
    const auto found = merged.find(name);
    if (!is_adapter_parameter(name))
      contents.model.emplace_back(name, found == merged.end() ? tensor : found->second);
  }
  NewFolder output(folder);
  save_checkpoint(output.path(), contents);
  output.publish();
}

}  // namespace longreach
