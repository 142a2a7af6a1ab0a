// Corpora that are fetched by their names.
#include "data/corpora/fetch.h"

#include <gmock/gmock.h>

#include "tests/data/fixtures.h"

namespace longreach::data {
namespace {

using namespace testing;
using ::testing::HasSubstr;

TEST(Fetch, KnowsItsCorporaAndLeavesForeignFoldersAlone) {
  const TemporaryFolder folder;
  EXPECT_THAT(error_of([&] { fetch_corpus("shakespear"); }), HasSubstr("did you mean `shakespeare`?"));
  folder.write("taken/file", "mine");
  EXPECT_THAT(error_of([&] { fetch_corpus("shakespeare", folder.path("taken")); }),
              HasSubstr("is there already"));
  EXPECT_EQ(contents_of(folder.path("taken/file")), "mine");
  // A corpus that is there is not fetched again.
  folder.write("have/text/a.txt", "To be");
  folder.write("have/SOURCE.txt", "shakespeare");
  const auto corpus = fetch_corpus("shakespeare", folder.path("have/"));
  EXPECT_EQ(corpus.files, 1);
  EXPECT_EQ(corpus.bytes, 5);
}

}  // namespace
}  // namespace longreach::data
