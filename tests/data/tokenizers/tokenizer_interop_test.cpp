// Thousands of random texts against the libraries themselves, where Python has `tokenizers` and
// `sentencepiece`.
#include <gtest/gtest.h>

#include <cstdlib>

#include "core/temporary_folder.h"
#include "tests/data/tokenizers/tokenizer_cases.h"

namespace longreach::data {
namespace {

TEST(TokenizerInterop, RandomTextsEncodeAndDecodeAsTheLibraries) {
  if (std::system("python3 -c 'import sentencepiece, tokenizers' > /dev/null 2>&1") != 0)
    GTEST_SKIP() << "python3 has no sentencepiece and tokenizers";
  const TemporaryFolder folder;
  const std::string command = "python3 " LONGREACH_SOURCE_DIR "/tests/data/files/make_tokenizer_files.py '" +
                              folder.path() + "' --interop 17";
  ASSERT_EQ(std::system(command.c_str()), 0);
  test::expect_cases(folder.path());
}

}  // namespace
}  // namespace longreach::data
