// `longreach export CHECKPOINT DIR --format gates`: parts of a model for other programs.
#include <iostream>

#include "train/command_line.h"
#include "train/gates.h"
#include "train/saved_model.h"

namespace longreach {

int export_verb(const Arguments& arguments) {
  std::string checkpoint, folder, format;
  CLI::App app("writes a model, or a part of one, in a format of other programs", "export");
  app.add_option("CHECKPOINT", checkpoint, "run, checkpoint folder or step folder")->required();
  app.add_option("DIR", folder, "where to write")->required();
  app.add_option("--format", format, "gates: SeerAttention's gates alone, under the authors' names")
      ->required()
      ->check(CLI::IsMember({"gates"}));
  if (!parse_arguments(app, arguments)) return 0;
  const SavedModel saved = load_saved_model(checkpoint);
  write_gates(*saved.model, saved.path, folder);
  std::cout << folder << "/attn_gate_weights.safetensors\n";
  return 0;
}

}  // namespace longreach
