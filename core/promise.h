// Promises of our own code. What a user can mend is a UserError (core/error.h); a promise that does not hold
// is a bug of Longreach, says so with its place in the source, and ends the program with exit code 1.
#pragma once
#include "core/error.h"

namespace longreach {

struct BrokenPromise : Error {
  using Error::Error;
};

// "this is a bug of Longreach: WHAT (models/transformer.cpp:167)"; file and line are the caller's. By
// builtins, since clang 14 has no std::source_location.
std::string bug_report(std::string_view what, std::string_view file = __builtin_FILE(),
                       int line = __builtin_LINE());

// promise(count > 0, "a loss has a count"): throws BrokenPromise when it does not hold.
inline void promise(bool holds, std::string_view what, std::string_view file = __builtin_FILE(),
                    int line = __builtin_LINE()) {
  if (!holds) throw BrokenPromise(bug_report(what, file, line));
}

}  // namespace longreach
