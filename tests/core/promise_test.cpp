// A broken promise of our own code names itself a bug and its place, and is no error of the user's.
#include "core/promise.h"

#include <gtest/gtest.h>

namespace longreach {
namespace {

TEST(Promise, HoldsInSilence) { EXPECT_NO_THROW(promise(true, "one is one")); }

TEST(Promise, BrokenIsABugWithItsPlace) {
  const int line = __LINE__ + 2;
  try {
    promise(false, "two is three");
    FAIL() << "a promise was broken in silence";
  } catch (const BrokenPromise& error) {
    const std::string message = error.what();
    EXPECT_NE(message.find("this is a bug"), std::string::npos) << message;
    EXPECT_NE(message.find("two is three"), std::string::npos) << message;
    EXPECT_NE(message.find("(tests/core/promise_test.cpp:" + std::to_string(line) + ")"), std::string::npos)
        << message;
  }
}

TEST(Promise, IsNoErrorOfTheUser) { EXPECT_FALSE((std::is_base_of_v<UserError, BrokenPromise>)); }

}  // namespace
}  // namespace longreach
