// Thousands of random texts against the libraries themselves.
#include <gtest/gtest.h>

#include <cstdlib>

#include "core/temporary_folder.h"
#include "tests/data/tokenizers/tokenizer_cases.h"
#include "tests/support/interop.h"

namespace longreach::data {
namespace {

class TokenizerInterop : public longreach::test::Interop {};

TEST_F(TokenizerInterop, RandomTextsEncodeAndDecodeAsTheLibraries) {
  const TemporaryFolder folder;
  const std::string command = longreach::test::interop_python() +
                              " " LONGREACH_SOURCE_DIR "/tests/data/files/make_tokenizer_files.py '" +
                              folder.path() + "' --interop 17";
  ASSERT_EQ(std::system(command.c_str()), 0);
  test::expect_cases(folder.path());
}

}  // namespace
}  // namespace longreach::data
