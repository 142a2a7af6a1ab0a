#include "train/export.h"

#include "train/adapter_export.h"
#include "train/gates.h"
#include "train/saved_model.h"

namespace longreach {

const std::vector<std::string>& export_formats() {
  static const std::vector<std::string> formats{"gates", "peft", "merged"};
  return formats;
}

std::string export_model(const std::string& checkpoint, const std::string& folder, const std::string& format,
                         const std::string& base) {
  if (format == "merged") {
    write_merged(checkpoint, folder);
    return folder;
  }
  const SavedModel saved = load_saved_model(checkpoint);
  if (format == "gates") {
    write_gates(*saved.model, saved.path, folder);
    return folder + "/attn_gate_weights.safetensors";
  }
  write_peft(*saved.model, saved.config.adapter,
             base.empty() ? saved.config.checkpoint.initial_load_path : base, folder);
  return folder + "/adapter_model.safetensors";
}

}  // namespace longreach
