// Tests that compare with Python's packages, which `./longreach test` fetches (tools/interop.sh).
#pragma once
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

namespace longreach::test {

// The interpreter that has them; empty where they are not there.
inline std::string interop_python() {
  const char* folder = std::getenv("LONGREACH_INTEROP");
  return folder == nullptr ? "" : std::string(folder) + "/python3";
}

class Interop : public testing::Test {
 protected:
  void SetUp() override {
    if (interop_python().empty())
      GTEST_SKIP() << "SKIPPED, NOT TESTED: run `./longreach test -L interop`, which fetches the packages";
  }
};

}  // namespace longreach::test
