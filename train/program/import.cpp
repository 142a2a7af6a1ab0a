// `longreach import SOURCE DIR`: a model of another program as a checkpoint.
#include <filesystem>
#include <iomanip>
#include <iostream>

#include "data/corpora/fetch_model.h"
#include "train/import.h"
#include "train/program/command_line.h"
#include "train/program/verbs.h"

namespace longreach {

int import_verb(const Arguments& arguments) {
  std::string source, folder;
  std::vector<std::string> ignored;
  ImportOptions options;
  CLI::App app("makes a model of another program a checkpoint, in float32, with its tokenizer", "import");
  app.add_option(
         "SOURCE", source,
         text("a Hugging Face folder (llama, mistral, qwen2, qwen3, minimax, minicpm_sala, nsa) or a GGUF "
              "file, a folder of PEFT's adapters, the authors' file of taught gates, or the name of a model "
              "to fetch: ",
              join(data::model_names())))
      ->required();
  app.add_option("DIR", folder, "a new folder, which appears when it is whole")->required();
  app.add_option("--ignore", ignored,
                 "a key of its config that has no effect on what it computes; may be given more than once")
      ->allow_extra_args(false);
  app.add_option("--base", options.base,
                 "the model that adapters or gates are for: a run, a checkpoint or another program's model");
  app.add_flag("--allow-nonfinite", options.allow_nonfinite, "take weights that are NaN or infinite");
  if (!parse_arguments(app, arguments)) return 0;
  options.ignored = {ignored.begin(), ignored.end()};
  if (data::is_named_model(source) && !std::filesystem::exists(source)) {
    const data::FetchedModel model = data::fetch_model(source);
    std::cout << "licence    " << model.licence << " (" << model.folder << "/LICENSE.txt)\n";
    source = model.file;
  }
  const Imported imported = import_model(source, folder, options);
  std::cout << "imported   " << source << ": " << imported.tensors << " tensors, " << std::fixed
            << std::setprecision(2) << static_cast<double>(imported.parameters) / 1e6
            << " million parameters\n"
            << "checked    logits of 64 tokens, read again: largest difference " << std::defaultfloat
            << imported.difference << " of the largest\n"
            << imported.path << "\n";
  return 0;
}

}  // namespace longreach
