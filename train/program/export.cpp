// `longreach export CHECKPOINT DIR --format FORMAT`: a model, or a part of one, for other programs.
#include <iostream>

#include "checkpoints/formats/hugging_face_export.h"
#include "train/export.h"
#include "train/program/command_line.h"

namespace longreach {

int export_verb(const Arguments& arguments) {
  std::string checkpoint, folder, format;
  ExportOptions options;
  CLI::App app("writes a model, or a part of one, anew or in a format of other programs", "export");
  app.add_option("CHECKPOINT", checkpoint, "run, checkpoint folder, step folder or another program's model")
      ->required();
  app.add_option("DIR", folder, "a new folder, which appears when it is whole")->required();
  app.add_option(
         "--format", format,
         "hf: the whole model as transformers loads it, with its adapters in its weights; gguf: the same as "
         "a GGUF file, model.gguf; gates: "
         "SeerAttention's gates alone, under the authors' names; peft: adapters and modules_to_save as "
         "PEFT loads them; native: a checkpoint of ours, weights and tokenizer without the optimizer; "
         "merged: the same with the adapters in its weights")
      ->required()
      ->check(CLI::IsMember(export_formats()));
  app.add_option(
      "--dtype", options.dtype,
      "what weights are written as; hf: float32 (default), bfloat16, float16; gguf: float16 (default), "
      "float32, q8_0");
  app.add_option(
         "--family", options.family,
         "hf: what the folder is (docs/export.md); auto (default): a class of transformers where there "
         "is one, else longreach, which brings its code")
      ->check(CLI::IsMember(hugging_face_targets()));
  app.add_option("--base", options.base,
                 "peft: base_model_name_or_path; default: the run's checkpoint.initial_load_path");
  if (!parse_arguments(app, arguments)) return 0;
  std::cout << export_model(checkpoint, folder, format, options) << "\n";
  return 0;
}

}  // namespace longreach
