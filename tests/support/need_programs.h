// Tests that need programs of packages which a machine may lack.
#pragma once
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "tests/support/program.h"

namespace longreach::test {

// Skips the test with a loud line, or fails it where CI must have the packages. For SetUp().
inline void need_programs(const std::vector<std::string>& programs, const std::string& packages) {
  for (const std::string& program : programs) {
    if (run_command({"sh", "-c", "PATH=$PATH:/usr/sbin:/sbin; command -v " + program}).code == 0) continue;
    const std::string line = "no " + program + ": as root, `apt-get install " + packages + "`";
    const char* ci = std::getenv("CI");
    ASSERT_NE(ci == nullptr ? "" : ci, std::string("true")) << line;
    GTEST_SKIP() << "SKIPPED, NOT TESTED: " << line;
  }
}

}  // namespace longreach::test
