// Token stores: round trips, windows, damage, locks and hostile files.
#include "data/corpora/token_store.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <hdf5.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <ctime>
#include <thread>

#include "data/corpora/forked.h"
#include "data/split.h"
#include "tests/data/corpora/stores.h"

namespace longreach::data {
namespace {

using namespace testing;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class StoreRoundTrip : public ::testing::TestWithParam<std::tuple<int64_t, int>> {};

TEST_P(StoreRoundTrip, KeepsEveryTokenAndWindow) {
  const auto [vocab, gzip] = GetParam();
  const TemporaryFolder folder;
  StoreAbout about = about_bytes(vocab);
  about.gzip_level = gzip;
  about.documents_are_files = true;
  const auto tokens = random_tokens(200000, static_cast<Token>(vocab), 1);
  const std::vector<int64_t> lengths{1, 70000, 0, 65536 - 4464, 60000, 8926, 1};
  const auto store = TokenStore::open(write_store(folder.path("a.h5"), tokens, lengths, about));
  EXPECT_EQ(read_all(*store), tokens);
  EXPECT_EQ(store->document_offsets(), (std::vector<int64_t>{0, 1, 70001, 131073, 191073, 199999, 200000}));
  EXPECT_EQ(store->about().vocab_size, vocab);
  EXPECT_EQ(store->about().tokenizer_fingerprint, "f00d");
  EXPECT_TRUE(store->about().documents_are_files);
  store->verify();
  std::mt19937 random(2);
  for (int i = 0; i < 200; ++i) {  // many of them cross one or two chunk borders
    const size_t begin = random() % tokens.size(), length = random() % (tokens.size() - begin);
    std::vector<Token> window(length);
    store->read(static_cast<int64_t>(begin), window);
    ASSERT_TRUE(std::equal(window.begin(), window.end(), tokens.begin() + static_cast<int64_t>(begin)));
  }
  EXPECT_FALSE(std::filesystem::exists(folder.path("a.h5.partial")));
}
INSTANTIATE_TEST_SUITE_P(All, StoreRoundTrip,
                         ::testing::Combine(::testing::Values(300, 65536, 65537, 128256),
                                            ::testing::Values(0, 4)));

TEST(TokenStore, StoresNarrowTokensInTwoBytes) {
  const TemporaryFolder folder;
  const auto tokens = random_tokens(1 << 20, 65536, 3);
  const auto narrow =
      TokenStore::open(write_store(folder.path("n.h5"), tokens, {1 << 20}, about_bytes(65536)));
  const auto wide = TokenStore::open(write_store(folder.path("w.h5"), tokens, {1 << 20}, about_bytes(65537)));
  EXPECT_LT(narrow->file_bytes(), (2 << 20) + 65536);
  EXPECT_GT(wide->file_bytes(), 4 << 20);
}

TEST(TokenStore, KeepsTheLossMask) {
  const TemporaryFolder folder;
  StoreAbout about = about_bytes();
  about.loss_mask = true;
  TokenStoreWriter writer(folder.path("m.h5"), about);
  writer.append({{1, 2, 3}}, {{0, 1, 1}});
  writer.append({{4, 5}});
  writer.end_document();
  writer.finish();
  const auto store = TokenStore::open(folder.path("m.h5"));
  std::vector<uint8_t> mask(4);
  store->read_loss_mask(1, mask);
  EXPECT_TRUE(store->has_loss_mask());
  EXPECT_EQ(mask, (std::vector<uint8_t>{1, 1, 1, 1}));
  store->read_loss_mask(0, mask);
  EXPECT_EQ(mask[0], 0);
  store->verify();
}

// Not by its name or folder: a run that was moved goes on with the same data.
TEST(TokenStore, IsNamedByItsContent) {
  const TemporaryFolder folder;
  auto tokens = random_tokens(70000, 256, 21);
  const auto of = [&](const std::string& name, const std::vector<int64_t>& lengths, StoreAbout about) {
    return TokenStore::open(write_store(folder.path(name), tokens, lengths, about))->fingerprint();
  };
  StoreAbout masked = about_bytes(), packed = about_bytes();
  masked.loss_mask = true;
  packed.gzip_level = 1;
  const auto first = of("a.h5", {70000}, about_bytes());
  EXPECT_EQ(of("b.h5", {70000}, about_bytes()), first);
  EXPECT_EQ(of("c.h5", {70000}, packed), first);
  EXPECT_NE(of("d.h5", {1, 69999}, about_bytes()), first);
  EXPECT_NE(of("e.h5", {70000}, masked), first);
  const auto halves = [&](int64_t cut) {
    return slice(TokenStore::open(folder.path("a.h5")), {{0, cut}, {cut, 70000}})->fingerprint();
  };
  EXPECT_EQ(halves(5), halves(5));
  EXPECT_NE(halves(5), halves(6));
  const std::vector<uint8_t> all(70000, 1), last_off = [] {
    std::vector<uint8_t> mask(70000, 1);
    mask.back() = 0;
    return mask;
  }();
  EXPECT_EQ(MemorySource(tokens, {0, 70000}, all).fingerprint(),
            MemorySource(tokens, {0, 70000}, all).fingerprint());
  EXPECT_NE(MemorySource(tokens, {0, 70000}, all).fingerprint(),
            MemorySource(tokens, {0, 70000}, last_off).fingerprint());
  tokens.back() ^= 1;
  EXPECT_NE(of("f.h5", {70000}, about_bytes()), first);
}

TEST(TokenStore, IsReadByManyThreads) {
  const TemporaryFolder folder;
  const auto tokens = random_tokens(300000, 300, 4);
  for (const int gzip : {0, 1}) {
    StoreAbout about = about_bytes();
    about.gzip_level = gzip;
    const auto store = TokenStore::open(write_store(folder.path("t.h5"), tokens, {300000}, about));
    std::vector<std::thread> threads;
    std::atomic<int> wrong{0};
    for (uint32_t t = 0; t < 4; ++t)
      threads.emplace_back([&, t] {
        std::mt19937 random(t);
        std::vector<Token> window(8192);
        for (int i = 0; i < 50; ++i) {
          const int64_t begin = random() % (300000 - 8192);
          store->read(begin, window);
          wrong += !std::equal(window.begin(), window.end(), tokens.begin() + begin);
        }
      });
    for (auto& thread : threads) thread.join();
    EXPECT_EQ(wrong, 0);
  }
}

TEST(TokenStore, ReadsARandomWindowInATenthOfAMillisecond) {
  const TemporaryFolder folder;
  const auto tokens = random_tokens(8 << 20, 300, 5);
  const auto store = TokenStore::open(write_store(folder.path("s.h5"), tokens, {8 << 20}, about_bytes()));
  std::vector<Token> window(8192);
  std::mt19937 random(6);
  timespec begin{}, end{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &begin);
  constexpr int kReads = 1000;
  for (int i = 0; i < kReads; ++i) store->read(random() % ((8 << 20) - 8192), window);
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &end);
  const double each = (static_cast<double>(end.tv_sec - begin.tv_sec) * 1e3 +
                       static_cast<double>(end.tv_nsec - begin.tv_nsec) * 1e-6) /
                      kReads;
  RecordProperty("milliseconds_a_window", std::to_string(each));
  std::printf("8k window: %.4f ms\n", each);
#if defined(NDEBUG) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  EXPECT_LT(each, 0.1);
#endif
}

TEST(TokenStore, FindsAChangedTokenByItsChecksum) {
  const TemporaryFolder folder;
  for (const bool masked : {false, true}) {
    StoreAbout about = about_bytes();
    about.loss_mask = masked;
    const auto tokens = random_tokens(200000, 256, 8);
    const std::string path = write_store(folder.path("c.h5"), tokens, {200000}, about);
    std::string file = contents_of(path);
    // The bytes of tokens 140000.. (chunk 2) are found by their value.
    std::string needle;
    for (size_t i = 140000; i < 140008; ++i) needle += {static_cast<char>(tokens[i]), '\0'};
    const size_t at = file.find(needle);
    ASSERT_NE(at, std::string::npos);
    file[at] = static_cast<char>(file[at] ^ 1);
    folder.write("c.h5", file);
    EXPECT_THAT(error_of([&] { TokenStore::open(path)->verify(); }), HasSubstr("`tokens` chunk 2"));
    // Training finds it at the first window that touches the chunk, and every other window is right.
    const auto store = TokenStore::open(path);
    std::vector<Token> window(100);
    for (int turn = 0; turn < 2; ++turn) {
      store->read(70000, window);
      EXPECT_TRUE(std::equal(window.begin(), window.end(), tokens.begin() + 70000));
      EXPECT_THAT(error_of([&] { store->read(131050, window); }), HasSubstr("`tokens` chunk 2"));
    }
  }
}

TEST(TokenStore, FindsAChangedMaskWhenItIsRead) {
  const TemporaryFolder folder;
  StoreAbout about = about_bytes();
  about.loss_mask = true;
  const std::string path = write_store(folder.path("m.h5"), random_tokens(1000, 256, 8), {1000}, about);
  std::string file = contents_of(path);
  const size_t at = file.find(std::string(1000, '\1'));
  ASSERT_NE(at, std::string::npos);
  file[at + 500] = 0;
  folder.write("m.h5", file);
  const auto store = TokenStore::open(path);
  std::vector<uint8_t> mask(10);
  EXPECT_THAT(error_of([&] { store->read_loss_mask(0, mask); }), HasSubstr("`loss_mask` chunk 0"));
}

// A store that another program writes, or has locked, is not damaged: what is locked now can be read later.
TEST(TokenStore, SaysThatItIsLocked) {
  const TemporaryFolder folder;
  const std::string path = write_store(folder.path("l.h5"), {1, 2, 3}, {3}, about_bytes());
  const auto expect_refused = [&](const std::string& what) {
    try {
      TokenStore::open(path);
      ADD_FAILURE() << "opened";
    } catch (const DamagedFile& error) {
      ADD_FAILURE() << error.what();
    } catch (const DataError& error) {
      EXPECT_THAT(error.what(), AllOf(StartsWith(path), HasSubstr(what)));
    }
  };
  const int other = ::open(path.c_str(), O_RDWR);
  ASSERT_EQ(::flock(other, LOCK_SH), 0);
  EXPECT_EQ(TokenStore::open(path)->num_tokens(), 3);  // as other readers do
  ASSERT_EQ(::flock(other, LOCK_EX), 0);
  expect_refused("locked by another program");
  ASSERT_EQ(::flock(other, LOCK_UN), 0);
  struct flock range {};
  range.l_type = F_WRLCK;
  ASSERT_EQ(::fcntl(other, F_OFD_SETLK, &range), 0);
  expect_refused("locked by");
  ::close(other);
  EXPECT_EQ(TokenStore::open(path)->num_tokens(), 3);
  const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
  expect_refused("locked by another program");
  std::string unlocked = contents_of(path);  // as it looks where there are no locks
  H5Fclose(file);
  EXPECT_EQ(TokenStore::open(path)->num_tokens(), 3);
  folder.write("l.h5", unlocked);
  expect_refused("open for writing in another program");
  const auto store = [&] {
    write_store(path, {1, 2, 3}, {3}, about_bytes());
    return TokenStore::open(path);
  }();
  EXPECT_LT(H5Fopen(path.c_str(), H5F_ACC_RDWR, H5P_DEFAULT), 0);  // and nobody writes what is being read
}

TEST(TokenStore, SaysInOneLineWhatIsWrongWithAForeignFile) {
  const TemporaryFolder folder;
  EXPECT_THAT(error_of([&] { TokenStore::open(folder.path("none.h5")); }), HasSubstr("cannot be opened"));
  EXPECT_THAT(error_of([&] { TokenStore::open(folder.write("t.h5", "just text")); }),
              HasSubstr("not an HDF5 file"));
  EXPECT_THAT(error_of([&] { TokenStore::open(folder.write("e.h5", "")); }), HasSubstr("not an HDF5 file"));
  EXPECT_THAT(error_of([&] { TokenStore::open(folder.path()); }), HasSubstr("not a regular file"));
  const std::string foreign = folder.path("f.h5");
  H5Fclose(H5Fcreate(foreign.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT));
  EXPECT_THAT(error_of([&] { TokenStore::open(foreign); }), HasSubstr("not a Longreach token store"));
}

TEST(TokenStore, SurvivesTruncationAnywhere) {
  const TemporaryFolder folder;
  const auto tokens = random_tokens(150000, 256, 9);
  for (const int gzip : {0, 3}) {
    StoreAbout about = about_bytes();
    about.gzip_level = gzip;
    const std::string whole = contents_of(write_store(folder.path("w.h5"), tokens, {100, 149900}, about));
    for (size_t part = 0; part < 50; ++part) {
      const auto path = folder.write("cut.h5", whole.substr(0, whole.size() * part / 50));
      EXPECT_THAT(error_of([&] { TokenStore::open(path); }), StartsWith(path));
    }
    // Cut while it is open: an error, not a crash.
    const auto path = folder.write("open.h5", whole);
    const auto store = TokenStore::open(path);
    std::filesystem::resize_file(path, whole.size() / 2);
    EXPECT_THAT(error_of([&] { read_all(*store); }), StartsWith(path));
  }
}

TEST(TokenStore, SurvivesFlippedBytes) {
  const TemporaryFolder folder;
  const auto tokens = random_tokens(66000, 256, 10);
  const std::string whole = contents_of(write_store(folder.path("w.h5"), tokens, {66000}, about_bytes()));
  std::mt19937 random(11);
  for (int i = 0; i < 150; ++i) {
    std::string damaged = whole;
    const size_t region = i % 2 == 0 ? 4096 : damaged.size();  // the headers lie first
    damaged[random() % region] = static_cast<char>(random());
    expect_error_or_truth(folder.write("flip.h5", damaged), tokens, {0, 66000});
  }
}

// The library itself crashes, divides by zero or loops on some of these (one in twelve).
TEST(TokenStore, SurvivesDamageThatItsChecksumsHide) { expect_damage_is_survived(60, 13); }

// A file of a few kilobytes that claims 2^50 tokens and documents.
TEST(TokenStore, AllocatesNothingForHostileSizes) {
  const TemporaryFolder folder;
  const std::string path =
      write_store(folder.path("h.h5"), random_tokens(1000, 256, 12), {1000}, about_bytes());
  for (const char* name : {"tokens", "document_offsets", "checksums"}) {
    write_store(path, random_tokens(1000, 256, 12), {1000}, about_bytes());
    const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
    const hid_t dataset = H5Dopen2(file, name, H5P_DEFAULT);
    const hsize_t size[1] = {hsize_t{1} << 50};
    ASSERT_GE(H5Dset_extent(dataset, size), 0);
    H5Dclose(dataset);
    H5Fclose(file);
    EXPECT_THAT(error_of([&] { TokenStore::open(path); }), StartsWith(path));
  }
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  EXPECT_LT(usage.ru_maxrss, 4L << 20);  // KiB
}

}  // namespace
}  // namespace longreach::data
