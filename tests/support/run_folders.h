// Where a run of the program leaves things.
#pragma once
#include <cstdio>
#include <string>

#include "core/temporary_folder.h"

namespace longreach::test {

inline std::string step_folder(const TemporaryFolder& folder, const std::string& run, int64_t step) {
  char name[32];
  std::snprintf(name, sizeof name, "step-%08lld", static_cast<long long>(step));
  return folder.path(run + "/checkpoint/" + name);
}

}  // namespace longreach::test
