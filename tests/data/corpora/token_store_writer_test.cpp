// Writing token stores: resuming, one writer at a time, what is refused, full disks.
#include <gmock/gmock.h>
#include <sys/resource.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <iostream>
#include <thread>

#include "tests/data/corpora/stores.h"

namespace longreach::data {
namespace {

using namespace testing;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

// A writer that dies between documents, or inside one, leaves a store that the next writer completes.
TEST(TokenStoreWriter, GoesOnAfterBeingKilled) {
  const TemporaryFolder folder;
  const auto tokens = random_tokens(5 << 20, 300, 7);
  const std::vector<int64_t> lengths(20, 1 << 18);
  const std::string path = folder.path("r.h5"),
                    whole = write_store(folder.path("w.h5"), tokens, lengths, about_bytes());
  std::this_thread::sleep_for(std::chrono::milliseconds(1100));  // no clock in seconds may be part of a store
  int64_t done = 0;
  for (const int64_t stop : {7, 13, 20}) {
    TokenStoreWriter writer(path, about_bytes());
    EXPECT_EQ(writer.documents_done(), done);
    EXPECT_EQ(writer.num_tokens(), done << 18);
    for (int64_t i = writer.documents_done(); i < stop; ++i) {
      writer.append(std::span(tokens).subspan(static_cast<size_t>(i) << 18, 1 << 18));
      writer.end_document();
    }
    EXPECT_FALSE(std::filesystem::exists(path));
    if (stop == 20)
      writer.finish();
    else
      writer.append({{1, 2, 3}});  // dies inside a document
    done = stop / 4 * 4;           // checkpoints every 1 Mi tokens
  }
  EXPECT_TRUE(contents_of(path) == contents_of(whole));
}

TEST(TokenStoreWriter, StartsOverWhenItsStreamsAreCutOrTheInputsChanged) {
  const TemporaryFolder folder;
  const std::string path = folder.path("r.h5");
  const auto begin = [&] {
    TokenStoreWriter writer(path, about_bytes());
    writer.append({{1, 2, 3}});
    writer.end_document();
    writer.checkpoint();
  };
  begin();
  EXPECT_EQ(TokenStoreWriter(path, about_bytes()).documents_done(), 1);
  StoreAbout changed = about_bytes();
  changed.source = "another";
  EXPECT_EQ(TokenStoreWriter(path, changed).documents_done(), 0);
  begin();
  std::filesystem::resize_file(path + ".partial/tokens", 5);
  EXPECT_EQ(TokenStoreWriter(path, about_bytes()).documents_done(), 0);
  begin();
  folder.write("r.h5.partial/progress.json", "{\"about\": 3, [");
  EXPECT_EQ(TokenStoreWriter(path, about_bytes()).documents_done(), 0);
}

// Two that wrote one store mixed their tokens.
TEST(TokenStoreWriter, LetsOneWriteAtATime) {
  const TemporaryFolder folder;
  const std::string path = folder.path("one.h5");
  {
    TokenStoreWriter first(path, about_bytes());
    first.append({{1, 2}});
    std::string refusal;
    try {
      TokenStoreWriter(path, about_bytes(500));
    } catch (const UserError& error) {
      refusal = error.what();
    }
    EXPECT_THAT(refusal,
                AllOf(StartsWith(path), HasSubstr(text("in use by process ", ::getpid(), " on host "))));
    first.append({{3}});
    first.end_document();
    first.finish();
  }
  EXPECT_EQ(read_all(*TokenStore::open(path)), (std::vector<Token>{1, 2, 3}));
  EXPECT_EQ(TokenStoreWriter(path, about_bytes()).documents_done(), 0);
  EXPECT_FALSE(std::filesystem::exists(path + ".partial.lock"));
}

TEST(TokenStoreWriter, RefusesWhatDoesNotBelong) {
  const TemporaryFolder folder;
  TokenStoreWriter writer(folder.path("x.h5"), about_bytes());
  EXPECT_THAT(error_of([&] { writer.append({{300}}); }), HasSubstr("token 300, allowed: 0 to 299"));
  EXPECT_THAT(error_of([&] { writer.append({{3}}, {{1}}); }), HasSubstr("mask"));
  EXPECT_THAT(error_of([&] { writer.finish(); }), HasSubstr("no text"));
  EXPECT_THAT(error_of([&] { TokenStoreWriter("/proc/none/x.h5", about_bytes()); }),
              StartsWith("/proc/none"));
}

// The program that tokenizes has 6 kB to 180 kB of disk; it says so and ends with what exit code it wants.
TEST(TokenStoreWriter, EndsInAnErrorWhereverTheDiskIsFull) {
  const TemporaryFolder folder;
  const int64_t whole =
      TokenStore::open(write_store(folder.path("w.h5"), {1, 2, 3}, {3}, about_bytes()))->file_bytes();
  const std::string path = folder.path("f.h5");
  for (int64_t part = 1; part < 28; part += 3) {
    std::filesystem::remove_all(path + ".partial");
    const auto limit = static_cast<rlim_t>(whole * part / 28);
    const auto write_and_exit = [&] {
      const rlimit size{limit, limit};
      ::setrlimit(RLIMIT_FSIZE, &size);
      std::signal(SIGXFSZ, SIG_IGN);
      try {
        write_store(path, {1, 2, 3}, {3}, about_bytes());
      } catch (const DataError& error) {
        std::cerr << error.what() << "\n";
        std::exit(2);
      }
    };
    EXPECT_EXIT(write_and_exit(), ::testing::ExitedWithCode(2), "f.h5.*cannot be written.*File too large");
    EXPECT_FALSE(std::filesystem::exists(path));
    EXPECT_FALSE(std::filesystem::exists(path + ".partial/store.h5"));
  }
  TokenStoreWriter again(path, about_bytes());  // there is room again, and nothing is lost
  EXPECT_EQ(again.documents_done(), 1);
  again.finish();
  EXPECT_TRUE(contents_of(path) == contents_of(folder.path("w.h5")));
}

}  // namespace
}  // namespace longreach::data
