// `longreach verify`: reference vectors against the operators and modules of this build.
#include <iostream>

#include "train/program/command_line.h"
#include "train/program/verbs.h"
#include "train/program/verify_model.h"
#include "train/verify/verify.h"

namespace longreach {

int verify_verb(const Arguments& arguments) {
  CLI::App app("Runs reference-vector files and compares every out.* and grad.* in them", "verify");
  std::vector<std::string> files;
  std::string implementation, dtype, checkpoint;
  app.add_option(
         "FILE", files,
         "safetensors files with in.*, param.*, gout.*, out.*, grad.* and metadata, or folders of them")
      ->required();
  app.add_option("--impl", implementation,
                 "Only this implementation; default: the reference in float64 and the fused path in float32")
      ->check(CLI::IsMember({"reference", "fused"}));
  app.add_option("--dtype", dtype, "Of inputs and parameters; default: float64 (reference), float32 (fused)")
      ->check(CLI::IsMember({"float32", "bfloat16"}));
  app.add_option(
      "--checkpoint", checkpoint,
      "a run, checkpoint or model of another program, that made the files' out.logits and the like "
      "of in.input_ids (mechanism causal_lm)");
  if (!parse_arguments(app, arguments)) return 0;
  verify::Options options;
  if (!implementation.empty())
    options.implementation = implementation == "fused" ? Implementation::fused : Implementation::reference;
  if (!dtype.empty()) options.dtype = dtype == "float32" ? at::kFloat : at::kBFloat16;
  if (!checkpoint.empty()) return verify_model(checkpoint, files, options, std::cout, std::cerr);
  return verify::verify_files(files, options, std::cout, std::cerr);
}

}  // namespace longreach
