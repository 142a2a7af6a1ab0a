// The check of an error: its type and a part of its message.
#pragma once
#include <gtest/gtest.h>

#include <functional>
#include <string>

namespace longreach::test {

// The call throws an E whose message holds `part`.
template <class E>
void expect_error(const std::string& part, const std::function<void()>& call) {
  try {
    call();
    ADD_FAILURE() << "no error; expected one with: " << part;
  } catch (const E& error) {
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }
}

}  // namespace longreach::test
