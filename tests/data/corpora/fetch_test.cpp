// Corpora and models that are fetched by their names.
#include "data/corpora/fetch.h"

#include <gmock/gmock.h>

#include <cstdlib>

#include "data/corpora/fetch_model.h"
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

// A model that is there is not fetched again.
TEST(Fetch, KnowsItsModels) {
  const TemporaryFolder cache;
  const char* before = std::getenv("XDG_CACHE_HOME");
  const std::string kept = before ? before : "";
  ::setenv("XDG_CACHE_HOME", cache.path().c_str(), 1);
  EXPECT_THAT(error_of([&] { fetch_model("smollm2-135"); }), HasSubstr("did you mean `smollm2-135m`?"));
  cache.write("longreach/models/smollm2-135m/SOURCE.txt", "model smollm2-135m");
  const FetchedModel model = fetch_model("smollm2-135m");
  EXPECT_EQ(model.file, cache.path("longreach/models/smollm2-135m/SmolLM2-135M-Instruct.Q4_1.gguf"));
  EXPECT_EQ(model.licence, "Apache-2.0");
  EXPECT_TRUE(is_named_model("smollm2-135m"));
  EXPECT_FALSE(is_named_model("smollm2"));
  before ? ::setenv("XDG_CACHE_HOME", kept.c_str(), 1) : ::unsetenv("XDG_CACHE_HOME");
}

}  // namespace
}  // namespace longreach::data
