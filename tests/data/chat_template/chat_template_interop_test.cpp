// Every family's template beside transformers' own function for apply_chat_template.
#include <cstdlib>

#include "core/temporary_folder.h"
#include "tests/data/chat_template/chat_template_cases.h"
#include "tests/support/interop.h"

namespace longreach::data {
namespace {

class ChatTemplateInterop : public longreach::test::Interop {};

TEST_F(ChatTemplateInterop, FamiliesRenderAsInTransformers) {
  const TemporaryFolder folder;
  const std::string out = folder.path("rendered.json");
  const std::string command =
      longreach::test::interop_python() +
      " " LONGREACH_SOURCE_DIR "/tests/data/chat_template/make_vectors.py --transformers '" + out + "'";
  ASSERT_EQ(std::system(command.c_str()), 0);
  EXPECT_GE(test::expect_renderings(out), 300);
}

}  // namespace
}  // namespace longreach::data
