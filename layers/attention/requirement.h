// What options of a mechanism need of the run around them: the program refuses a run that lacks it before
// anything is read or made.
//
// A config with such an option has members
//
//   std::optional<Requirement> requirement() const;  // of the options as they stand; nothing: any run does
//   void take_any_run();                             // back to options that do, for a run that goes on
#pragma once
#include <string>
#include <vector>

namespace longreach {

enum class Need {
  cuda,        // parallel.device = "cuda"
  bfloat16,    // training.mixed_precision_param = "bfloat16"
  whole_rows,  // training.varlen = false
  any_order,   // training.deterministic = false
};

struct Requirement {
  std::string option;  // backend = "cudnn"
  std::vector<Need> needs;
  std::string way_out;  // "auto" and ... take any run
};

}  // namespace longreach
