// What `verify` can run: the name in a vector file's metadata -> a function that runs its cases. A mechanism
// names its vectors in its config:
//
//   static constexpr std::array<std::string_view, 1> vectors{"sink_window"};
//   static void verify(verify::Case& run);                  // in the mechanism's verify.cpp
//   static constexpr bool chooses_from_scores = true;       // where it does
//
// and is found by visiting the closed list of mechanisms; operators whose vectors are no mechanism's are in
// operators.h.
#pragma once
#include <functional>
#include <map>
#include <string>

#include "train/verify/case.h"

namespace longreach::verify {

struct Runner {
  // Reads the inputs of a case, runs the operator or module, produces the outputs. Throws UnknownCase for a
  // config it does not know.
  void (*run)(Case&);
  // What is read is chosen from scores: inputs that are rounded may choose otherwise, and no limit speaks of
  // that.
  bool chooses_from_scores;
};

const std::map<std::string, Runner, std::less<>>& runners();

}  // namespace longreach::verify
