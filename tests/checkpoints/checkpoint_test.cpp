// What a checkpoint promises: bit-for-bit contents, all or nothing on disk, damage found, the previous one
// used.
#include "checkpoints/checkpoint.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstring>
#include <filesystem>

#include "checkpoints/folders.h"
#include "checkpoints/retention.h"
#include "core/error.h"
#include "tests/support/files.h"
#include "tests/support/random_tensors.h"

namespace longreach {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

std::vector<std::string> warnings;
void remember(const std::string& message) { warnings.push_back(message); }

CheckpointContents contents(int64_t step, double fill = 0) {
  const double value = fill == 0 ? static_cast<double>(step) : fill;
  CheckpointContents made;
  made.step = step;
  made.model = {{"z.weight", at::full({64, 33}, value, at::kFloat)},
                {"a.half", test::normal({7, 5}, static_cast<uint64_t>(step), at::kBFloat16)},
                {"m.double", test::normal({3}, static_cast<uint64_t>(step))},
                {"empty", at::empty({0, 4})}};
  made.optimizer = {{"z.weight.exp_avg", at::full({64, 33}, value / 3, at::kDouble)},
                    {"step", at::full({}, step, at::kLong)}};
  made.texts = {{"state.json", text("{\"step\": ", step, "}")},
                {"tokenizer/sub/tokenizer.json", "{}"},
                {"empty.txt", ""}};
  return made;
}

bool same(const NamedTensors& a, const NamedTensors& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    const at::Tensor &x = a[i].second, &y = b[i].second;
    if (a[i].first != b[i].first || x.scalar_type() != y.scalar_type() || x.sizes() != y.sizes())
      return false;
    if (x.nbytes() != 0 && std::memcmp(x.const_data_ptr(), y.const_data_ptr(), x.nbytes()) != 0) return false;
  }
  return true;
}

bool same(const CheckpointContents& a, const CheckpointContents& b) {
  return a.step == b.step && same(a.model, b.model) && same(a.optimizer, b.optimizer) && a.texts == b.texts;
}

std::vector<int64_t> steps_of(const std::string& root) {
  std::vector<int64_t> steps;
  for (const auto& [step, folder] : list_checkpoints(root)) steps.push_back(step);
  return steps;
}

std::vector<std::string> temporaries(const std::string& root) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(root))
    if (entry.path().extension() == ".tmp") names.push_back(entry.path().filename().string());
  return names;
}

// Runs `body` in a child process and returns waitpid's status.
template <class Body>
int in_child(Body body) {
  const pid_t child = ::fork();
  if (child == 0) {
    try {
      ::_exit(body());
    } catch (...) {
      ::_exit(99);
    }
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return status;
}

TEST(Checkpoint, RoundTripsBitForBit) {
  TemporaryFolder root;
  const std::string runs = root.path("runs/here");
  EXPECT_THROW(save_checkpoint(runs, contents(120)),
               CheckpointError);  // a run folder that has vanished stays away
  EXPECT_FALSE(fs::exists(root.path("runs")));
  fs::create_directory(root.path("runs"));
  const std::string folder = save_checkpoint(runs, contents(120));
  EXPECT_EQ(folder, root.path("runs/here/step-00000120"));
  EXPECT_TRUE(same(load_checkpoint(folder), contents(120)));
  const CheckpointContents light = load_checkpoint(folder, false);
  EXPECT_TRUE(light.optimizer.empty());
  EXPECT_TRUE(same(light.model, contents(120).model));
  EXPECT_TRUE(temporaries(root.path("runs/here")).empty());
}

TEST(Checkpoint, ReplacesAStepAndListsInOrder) {
  TemporaryFolder root;
  for (const int64_t step : {9, 10, 123456789, 0}) save_checkpoint(root.path(), contents(step));
  save_checkpoint(root.path(), contents(10, 77));
  EXPECT_THAT(steps_of(root.path()), ::testing::ElementsAre(0, 9, 10, 123456789));
  EXPECT_TRUE(same(*load_latest(root.path(), 10, remember), contents(10, 77)));
  EXPECT_TRUE(temporaries(root.path()).empty());
  EXPECT_THROW(load_latest(root.path(), 11, remember), CheckpointError);
}

TEST(Checkpoint, NothingIsNothing) {
  TemporaryFolder root;
  EXPECT_FALSE(load_latest(root.path("absent"), -1, remember).has_value());
  EXPECT_FALSE(load_latest(root.path(), -1, remember).has_value());
  EXPECT_TRUE(list_checkpoints(root.path("absent")).empty());
}

TEST(Checkpoint, FindsAFlippedBitInEveryFile) {
  TemporaryFolder root;
  const std::string folder = save_checkpoint(root.path(), contents(3));
  int files = 0;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (!entry.is_regular_file() || entry.file_size() == 0) continue;
    const std::string path = entry.path().string();
    ++files;
    const auto size = static_cast<int64_t>(entry.file_size());
    for (const int64_t at : {int64_t{0}, size / 3, size / 2, size - 1}) {
      test::flip_bit(path, at, static_cast<int>(at % 8));
      try {
        load_checkpoint(folder);
        ADD_FAILURE() << path << " byte " << at;
      } catch (const CheckpointError& error) {
        EXPECT_THAT(error.what(), HasSubstr(entry.path().filename().string()));
      }
      test::flip_bit(path, at, static_cast<int>(at % 8));
    }
  }
  EXPECT_EQ(files, 5);
  EXPECT_TRUE(same(load_checkpoint(folder), contents(3)));
}

TEST(Checkpoint, FindsEveryFlippedBitOfTheManifest) {
  TemporaryFolder root;
  const std::string folder = save_checkpoint(root.path(), contents(3)), path = folder + "/manifest.json";
  const auto size = static_cast<int64_t>(fs::file_size(path));
  for (int64_t at = 0; at < size; ++at) {
    test::flip_bit(path, at, static_cast<int>(at % 8));
    EXPECT_THROW(load_checkpoint(folder), CheckpointError) << at;
    test::flip_bit(path, at, static_cast<int>(at % 8));
  }
}

TEST(Checkpoint, FindsMissingTruncatedAndSwappedFiles) {
  TemporaryFolder root;
  const std::string folder = save_checkpoint(root.path(), contents(3));
  const std::string model = folder + "/model-00000.safetensors",
                    optimizer = folder + "/optimizer-00000.safetensors";
  const std::string model_bytes = test::read_text(model), optimizer_bytes = test::read_text(optimizer);
  test::write_file(model, model_bytes.substr(0, model_bytes.size() - 1));
  EXPECT_THROW(load_checkpoint(folder), CheckpointError);
  test::write_file(model, optimizer_bytes);
  test::write_file(optimizer, model_bytes);
  EXPECT_THROW(load_checkpoint(folder), CheckpointError);
  test::write_file(model, model_bytes);
  test::write_file(optimizer, optimizer_bytes);
  EXPECT_NO_THROW(load_checkpoint(folder));
  fs::remove(folder + "/empty.txt");
  EXPECT_THROW(load_checkpoint(folder), CheckpointError);
  EXPECT_THROW(load_checkpoint(root.path("step-00000004")), CheckpointError);
}

TEST(Checkpoint, FallsBackLoudlyAndSaysWhenNothingIsGood) {
  TemporaryFolder root;
  for (const int64_t step : {1, 2, 3}) save_checkpoint(root.path(), contents(step));
  test::flip_bit(root.path("step-00000003/model-00000.safetensors"), 300);
  fs::remove(root.path("step-00000002/manifest.json"));
  warnings.clear();
  EXPECT_TRUE(same(*load_latest(root.path(), -1, remember), contents(1)));
  ASSERT_EQ(warnings.size(), 2u);
  EXPECT_THAT(warnings[0], HasSubstr("step 3"));
  EXPECT_THAT(warnings[0], HasSubstr("model-00000.safetensors"));
  EXPECT_THAT(warnings[0], HasSubstr("step-00000002"));
  EXPECT_THROW(load_latest(root.path(), 3, remember), CheckpointError) << "an exact step does not fall back";
  fs::remove(root.path("step-00000001/state.json"));
  EXPECT_THROW(load_latest(root.path(), -1, remember), CheckpointError);
}

TEST(Checkpoint, ARenamedOrSwappedFolderIsPassedOver) {
  TemporaryFolder root;
  for (const int64_t step : {1, 2, 3}) save_checkpoint(root.path(), contents(step));
  fs::rename(root.path("step-00000003"), root.path("swap"));
  fs::rename(root.path("step-00000002"), root.path("step-00000003"));
  fs::rename(root.path("swap"), root.path("step-00000002"));
  for (const char* folder : {"step-00000002", "step-00000003", "step-00000003/"})
    EXPECT_THROW(load_checkpoint(root.path(folder)), CheckpointError) << folder;
  EXPECT_THROW(load_latest(root.path(), 3, remember), CheckpointError);
  warnings.clear();
  EXPECT_TRUE(same(*load_latest(root.path(), -1, remember), contents(1)));
  ASSERT_EQ(warnings.size(), 2u);
  EXPECT_THAT(warnings[0], HasSubstr("step-00000003: holds the checkpoint of step 2"));
  fs::rename(root.path("step-00000003"), root.path("best"));
  EXPECT_TRUE(same(load_checkpoint(root.path("best")), contents(2))) << "a name that says no step is free";
}

TEST(Checkpoint, LooksAtNoLaterStepThanAsked) {
  TemporaryFolder root;
  for (const int64_t step : {1, 2, 3}) save_checkpoint(root.path(), contents(step));
  EXPECT_EQ(load_latest(root.path(), -1, remember, 2)->step, 2);
  EXPECT_FALSE(load_latest(root.path(), -1, remember, 0).has_value());
}

TEST(Checkpoint, SetsLaterStepsAsideWithoutLosingAny) {
  TemporaryFolder root;
  for (const int64_t step : {1, 2, 3}) save_checkpoint(root.path(), contents(step));
  const auto renamed = set_aside_later(root.path(), 1);
  ASSERT_EQ(renamed.size(), 2u);
  EXPECT_EQ(renamed[0], std::pair(root.path("step-00000003"), root.path("step-00000003.set-aside")));
  EXPECT_THAT(steps_of(root.path()), ::testing::ElementsAre(1));
  save_checkpoint(root.path(), contents(3, 77));
  EXPECT_EQ(set_aside_later(root.path(), 2).at(0).second, root.path("step-00000003.set-aside-2"));
  EXPECT_TRUE(set_aside_later(root.path(), 1).empty());
  save_checkpoint(root.path(), contents(4));
  Retention(root.path(), 1).saved(4);
  EXPECT_TRUE(same(load_checkpoint(root.path("step-00000003.set-aside")), contents(3)));
  EXPECT_TRUE(same(load_checkpoint(root.path("step-00000003.set-aside-2")), contents(3, 77)));
  EXPECT_TRUE(same(load_checkpoint(root.path("step-00000002.set-aside")), contents(2)));
}

TEST(Retention, DeletesOldOnesAndLeftoversOnly) {
  TemporaryFolder root;
  for (int64_t step = 1; step <= 5; ++step) save_checkpoint(root.path(), contents(step));
  for (const char* name :
       {"step-00000006.tmp", "step-00000002.old.tmp", "notes.tmp", "step-x.tmp", "step-00000009 copy"})
    fs::create_directory(root.path(name));
  Retention(root.path(), 0).saved(5);
  EXPECT_EQ(steps_of(root.path()).size(), 5u);
  EXPECT_FALSE(fs::exists(root.path("step-00000006.tmp")));
  EXPECT_FALSE(fs::exists(root.path("step-00000002.old.tmp")));
  EXPECT_TRUE(fs::exists(root.path("notes.tmp")));
  EXPECT_TRUE(fs::exists(root.path("step-x.tmp")));
  Retention(root.path(), 2).saved(5);
  EXPECT_THAT(steps_of(root.path()), ::testing::ElementsAre(4, 5));
  EXPECT_TRUE(fs::exists(root.path("step-00000009 copy")));
}

TEST(Retention, WhatIsDamagedDoesNotCount) {
  TemporaryFolder root;
  for (int64_t step = 1; step <= 5; ++step) save_checkpoint(root.path(), contents(step));
  test::flip_bit(root.path("step-00000004/optimizer-00000.safetensors"), 200);
  fs::resize_file(root.path("step-00000003/model-00000.safetensors"), 100);
  Retention retention(root.path(), 2);
  retention.saved(5);
  EXPECT_THAT(steps_of(root.path()), ::testing::ElementsAre(2, 3, 4, 5));
  save_checkpoint(root.path(), contents(6));
  retention.saved(6);
  EXPECT_THAT(steps_of(root.path()), ::testing::ElementsAre(5, 6));
}

TEST(Retention, WhatWasWrittenStaysBesideLaterOnes) {
  TemporaryFolder root;
  for (const int64_t step : {5, 10, 15}) save_checkpoint(root.path(), contents(step));
  Retention retention(root.path(), 1);
  retention.resumed_from(5);
  save_checkpoint(root.path(), contents(7));
  retention.saved(7);
  EXPECT_THAT(steps_of(root.path()), ::testing::ElementsAre(5, 7, 10, 15))
      << "what the run resumed from stays until two newer ones are written";
  save_checkpoint(root.path(), contents(8));
  retention.saved(8);
  EXPECT_THAT(steps_of(root.path()), ::testing::ElementsAre(8, 10, 15));
}

TEST(Checkpoint, BringsBackWhatAnInterruptedReplacementMovedAway) {
  TemporaryFolder root;
  save_checkpoint(root.path(), contents(4));
  fs::rename(root.path("step-00000004"), root.path("step-00000004.old.tmp"));
  fs::create_directory(root.path("step-00000004.tmp"));
  EXPECT_TRUE(same(*load_latest(root.path(), -1, remember), contents(4)));
  EXPECT_TRUE(fs::exists(root.path("step-00000004.tmp"))) << "a reader leaves a save in progress alone";
}

TEST(Checkpoint, RefusesNamesThatLeaveTheFolder) {
  TemporaryFolder root;
  for (const char* name : {"../x", "/x", "a/../b", "a//b", "", "manifest.json", "model-1", "x\n", "."}) {
    CheckpointContents bad = contents(1);
    bad.texts[name] = "x";
    EXPECT_THROW(save_checkpoint(root.path(), bad), CheckpointError) << name;
  }
  EXPECT_TRUE(fs::is_empty(root.path()));
}

TEST(Checkpoint, AFileSizeLimitIsAnErrorAndLeavesThePreviousOne) {
  TemporaryFolder root;
  save_checkpoint(root.path(), contents(1));
  const int status = in_child([&] {
    struct rlimit limit {
      4096, 4096
    };
    ::setrlimit(RLIMIT_FSIZE, &limit);
    try {
      save_checkpoint(root.path(), contents(2));
      return 1;
    } catch (const CheckpointError& error) {
      return std::strstr(error.what(), "model-00000.safetensors") != nullptr ? 0 : 2;
    }
  });
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  EXPECT_TRUE(temporaries(root.path()).empty());
  EXPECT_TRUE(same(*load_latest(root.path(), -1, remember), contents(1)));
}

TEST(Checkpoint, AFullDiskIsAnErrorAndLeavesThePreviousOne) {
  TemporaryFolder root;
  if (::mount("tmpfs", root.path().c_str(), "tmpfs", 0, "size=192k") != 0)
    GTEST_SKIP() << "mounting needs root";
  save_checkpoint(root.path("run"), contents(1));
  CheckpointContents large;
  large.step = 2;
  large.model = {{"w", at::full({100'000}, 1.0)}};
  try {
    save_checkpoint(root.path("run"), large);
    ADD_FAILURE() << "the disk was not full";
  } catch (const CheckpointError& error) {
    EXPECT_THAT(error.what(), HasSubstr("No space left"));
  }
  // Also when replacing the only one.
  large.step = 1;
  EXPECT_THROW(save_checkpoint(root.path("run"), large), CheckpointError);
  EXPECT_TRUE(same(*load_latest(root.path("run"), -1, remember), contents(1)));
  EXPECT_TRUE(temporaries(root.path("run")).empty());
  ::umount(root.path().c_str());
}

TEST(Checkpoint, AReadOnlyFolderIsAClearError) {
  TemporaryFolder root;
  save_checkpoint(root.path("run"), contents(1));
  for (const auto& entry : fs::recursive_directory_iterator(root.path()))
    ::chmod(entry.path().c_str(), entry.is_directory() ? 0555 : 0444);
  ::chmod(root.path().c_str(), 0755);
  const int status = in_child([&] {
    if (::getuid() == 0 && ::setresuid(65534, 65534, 65534) != 0) return 3;
    if (!same(*load_latest(root.path("run"), -1, remember), contents(1))) return 4;
    try {
      save_checkpoint(root.path("run"), contents(2));
      return 1;
    } catch (const CheckpointError& error) {
      return std::strstr(error.what(), "Permission denied") != nullptr ? 0 : 2;
    }
  });
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  ::chmod((root.path("run")).c_str(), 0755);
  EXPECT_THAT(steps_of(root.path("run")), ::testing::ElementsAre(1));
  test::write_file(root.path("file"), "x");
  EXPECT_THROW(save_checkpoint(root.path("file"), contents(1)), CheckpointError);
}

// A child saves without end, new steps and the same step again; it is killed at ever later moments.
TEST(Checkpoint, AKillAtAnyMomentLeavesALoadableOne) {
  TemporaryFolder root;
  save_checkpoint(root.path(), contents(1));
  const auto start = std::chrono::steady_clock::now();
  save_checkpoint(root.path(), contents(1));
  const std::chrono::duration<double, std::micro> one_save = std::chrono::steady_clock::now() - start;
  const std::vector<CheckpointContents> turns = {contents(2), contents(1), contents(2, 5)};
  for (int moment = 0; moment < 30; ++moment) {
    const pid_t child = ::fork();
    if (child == 0) {
      for (size_t turn = 0;; ++turn) save_checkpoint(root.path(), turns[turn % turns.size()]);
    }
    ::usleep(static_cast<useconds_t>(200 + moment * one_save.count() / 8));
    ::kill(child, SIGKILL);
    int status = 0;
    ::waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status)) << "the child ended by itself";
    warnings.clear();
    const auto loaded = load_latest(root.path(), -1, remember);
    ASSERT_TRUE(loaded.has_value());
    EXPECT_TRUE(warnings.empty()) << warnings.front();
    EXPECT_TRUE(same(*loaded, contents(1)) || same(*loaded, contents(2)) || same(*loaded, contents(2, 5)))
        << moment;
  }
  Retention(root.path(), 1).saved(2);
  EXPECT_TRUE(temporaries(root.path()).empty());
}

// A new step, and the one before it again, with the deletion of what is older: killed at each of their
// points.
TEST(Checkpoint, AKillAtAnyPointLeavesTheOldOneOrTheNewOne) {
  TemporaryFolder before;
  for (const int64_t step : {1, 2}) save_checkpoint(before.path(), contents(step));
  for (const int64_t step : {3, 2}) {
    SCOPED_TRACE(step);
    const CheckpointContents saved = contents(step, 7);
    int64_t points = 0;
    for (int64_t killed_at = 1; killed_at == 1 || killed_at <= points; ++killed_at) {
      SCOPED_TRACE(killed_at);
      TemporaryFolder root;
      fs::copy(before.path(), root.path(), fs::copy_options::recursive);
      const auto save = [&](const WritePoint& point) {
        save_checkpoint(root.path(), saved, point);
        Retention(root.path(), 1).saved(step, point);
      };
      const int status = in_child([&] {
        int64_t reached = 0;
        save([&] {
          if (++reached == killed_at) ::raise(SIGKILL);
        });
        return 0;
      });
      ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
      warnings.clear();
      const auto loaded = load_latest(root.path(), -1, remember);
      ASSERT_TRUE(loaded.has_value());
      EXPECT_TRUE(warnings.empty()) << warnings.front();
      EXPECT_TRUE(same(*loaded, contents(2)) || same(*loaded, saved));
      points = 0;
      save([&] { ++points; });
      EXPECT_TRUE(same(*load_latest(root.path(), -1, remember), saved));
      EXPECT_THAT(steps_of(root.path()), ::testing::ElementsAre(step));
      EXPECT_TRUE(temporaries(root.path()).empty());
    }
    EXPECT_GT(points, 20);
  }
}

}  // namespace
}  // namespace longreach
