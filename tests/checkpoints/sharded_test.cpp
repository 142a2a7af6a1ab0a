// Checkpoints of several ranks: any run of any tensor, whoever wrote it; shards that do not fit each other;
// all or nothing on the disk.
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "checkpoints/checkpoint.h"
#include "checkpoints/checkpoint_writer.h"
#include "checkpoints/retention.h"
#include "core/error.h"
#include "tests/support/files.h"
#include "tests/support/random_tensors.h"

namespace longreach {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using Parts = ShardedTensors::Parts;

std::vector<std::string> warnings;
void remember(const std::string& message) { warnings.push_back(message); }

NamedTensors model_of(int64_t step) {
  return {{"z.weight", test::normal({16, 33}, static_cast<uint64_t>(step), at::kFloat)},
          {"a.half", test::normal({7, 5}, 2, at::kBFloat16)},
          {"scalar", at::full({}, step, at::kLong)},
          {"flags", at::full({3}, 1, at::kBool)},
          {"empty", at::empty({0, 4})}};
}

// Rank r's part of all tensors when n ranks share them: even cuts of most, none of some on some ranks.
std::vector<TensorRun> part_of(const NamedTensors& tensors, int64_t rank, int64_t ranks) {
  std::vector<TensorRun> runs;
  for (const auto& [name, tensor] : tensors) {
    const int64_t begin = tensor.numel() * rank / ranks, end = tensor.numel() * (rank + 1) / ranks;
    if (tensor.numel() == 0 && rank > 0) continue;
    runs.push_back({name, tensor.sizes().vec(), begin, tensor.reshape({-1}).narrow(0, begin, end - begin)});
  }
  return runs;
}

std::string save_shared(const std::string& root, int64_t step, int64_t ranks, const WritePoint& point = {}) {
  const NamedTensors model = model_of(step), optimizer = {{"z.weight.exp_avg", model[0].second * 2}};
  CheckpointWriter writer(root, step, point);
  for (int64_t rank = 0; rank < ranks; ++rank)
    writer.add_files(2, write_shards(writer.folder(), static_cast<int>(rank), part_of(model, rank, ranks),
                                     part_of(optimizer, rank, ranks), point));
  writer.add_text("state.json", "{}");
  return writer.publish();
}

void expect_model(const std::string& folder, int64_t step) {
  const CheckpointContents read = load_checkpoint(folder);
  EXPECT_EQ(read.step, step);
  EXPECT_EQ(read.texts, (std::map<std::string, std::string>{{"state.json", "{}"}}));
  const std::map<std::string, at::Tensor> by_name(read.model.begin(), read.model.end());
  const NamedTensors model = model_of(step);
  ASSERT_EQ(by_name.size(), model.size());
  for (const auto& [name, tensor] : model) {
    EXPECT_EQ(by_name.at(name).scalar_type(), tensor.scalar_type()) << name;
    EXPECT_TRUE(at::equal(by_name.at(name), tensor)) << name;
  }
  ASSERT_EQ(read.optimizer.size(), 1u);
  EXPECT_TRUE(at::equal(read.optimizer[0].second, model[0].second * 2));
}

TEST(ShardedCheckpoint, IsWholeWhoeverWroteIt) {
  TemporaryFolder root;
  for (int64_t ranks = 1; ranks <= 5; ++ranks) {
    SCOPED_TRACE(ranks);
    const std::string folder = save_shared(root.path(), ranks, ranks);
    EXPECT_EQ(read_manifest(folder).version, 2);
    EXPECT_TRUE(fs::exists(text(folder, "/optimizer-0000", ranks - 1, ".safetensors")));
    expect_model(folder, ranks);
  }
}

TEST(ShardedCheckpoint, GivesAnyRunAndReadsNothingElse) {
  TemporaryFolder root;
  const at::Tensor flat = model_of(3)[0].second.reshape({-1});
  for (int64_t ranks = 1; ranks <= 4; ++ranks) {
    const std::string folder = save_shared(root.path(), 3, ranks);
    for (int64_t begin = 0; begin <= flat.numel(); begin += 37)
      for (int64_t count = 0; begin + count <= flat.numel(); count += 71) {
        const CheckpointReader reader(folder);
        EXPECT_TRUE(at::equal(reader.model().run("z.weight", begin, count), flat.narrow(0, begin, count)));
        EXPECT_EQ(reader.model().bytes_read(), 4 * count);
        EXPECT_EQ(reader.optimizer().bytes_read(), 0);
      }
    const CheckpointReader reader(folder);
    EXPECT_EQ(reader.model().shape("empty"), (std::vector<int64_t>{0, 4}));
    EXPECT_EQ(reader.model().run("empty", 0, 0).numel(), 0);
    EXPECT_THROW(reader.model().run("z.weight", flat.numel() - 1, 2), CheckpointError);
    EXPECT_THROW(reader.model().run("z.weight", -1, 1), CheckpointError);
    EXPECT_THROW(reader.model().run("absent", 0, 1), CheckpointError);
  }
}

TEST(ShardedCheckpoint, ReadsRunsOfWhatOneRankWrote) {
  TemporaryFolder root;
  const std::string folder = save_checkpoint(root.path(), {.step = 3, .model = model_of(3)});
  EXPECT_EQ(read_manifest(folder).version, 1);
  const CheckpointReader reader(folder);
  const at::Tensor flat = model_of(3)[0].second.reshape({-1});
  EXPECT_TRUE(at::equal(reader.model().run("z.weight", 100, 9), flat.narrow(0, 100, 9)));
  EXPECT_EQ(reader.model().bytes_read(), 36);
  EXPECT_TRUE(reader.optimizer().names().empty());
}

// The bytes of version 1, written out.
TEST(ShardedCheckpoint, OneRankWritesVersion1) {
  TemporaryFolder root;
  const CheckpointContents contents{.step = 7,
                                    .model = {{"w", at::full({2}, 1, at::kChar)}},
                                    .optimizer = {{"s", at::full({}, 2, at::kByte)}},
                                    .texts = {{"a.txt", "x"}}};
  const std::string folder = save_checkpoint(root.path(), contents);
  const std::string header = R"({"w":{"data_offsets":[0,2],"dtype":"I8","shape":[2]}})";
  EXPECT_EQ(test::read_text(folder + "/model-00000.safetensors"),
            std::string("\x38\0\0\0\0\0\0\0", 8) + header + std::string(56 - header.size(), ' ') + "\1\1");
  const auto sum = [&](const char* name) {
    char digits[17];
    std::snprintf(digits, sizeof digits, "%016llx",
                  static_cast<unsigned long long>(sum_of_file(folder + "/" + name).xxh3));
    return std::string(digits);
  };
  const std::string manifest = test::read_text(folder + "/manifest.json");
  const std::string expected = text(
      "{\n \"format\": \"longreach-checkpoint\",\n \"version\": 1,\n \"step\": 7,\n \"files\": [\n  {\n"
      "   \"name\": \"model-00000.safetensors\",\n   \"bytes\": 66,\n   \"xxh3\": \"",
      sum("model-00000.safetensors"),
      "\"\n  },\n  {\n   \"name\": \"optimizer-00000.safetensors\",\n   \"bytes\": 65,\n   \"xxh3\": \"",
      sum("optimizer-00000.safetensors"),
      "\"\n  },\n  {\n   \"name\": \"a.txt\",\n   \"bytes\": 1,\n   \"xxh3\": \"", sum("a.txt"),
      "\"\n  }\n ],\n \"xxh3\": \"");
  EXPECT_EQ(manifest.substr(0, expected.size()), expected);
  EXPECT_EQ(manifest.size(), expected.size() + 16 + 4);
}

struct Shard {
  NamedTensors tensors;
  std::map<std::string, std::string> places;
};

std::string place(const std::string& shape, int64_t begin) {
  return text(R"({"shape":)", shape, R"(,"begin":)", begin, "}");
}

// A shard with that run of "w".
Shard run_of_w(int64_t begin, int64_t end, const std::string& shape = "[4,3]",
               at::ScalarType dtype = at::kFloat) {
  return {{{"w", at::zeros({end - begin}, dtype)}}, {{"w", place(shape, begin)}}};
}

std::string error_of(const std::vector<Shard>& shards, Parts parts = Parts::kRuns) {
  TemporaryFolder root;
  std::vector<std::string> paths;
  for (const Shard& shard : shards) {
    paths.push_back(root.path(text("shard-", paths.size())));
    write_safetensors(paths.back(), shard.tensors, shard.places);
  }
  try {
    const ShardedTensors read(paths, parts);
    return "";
  } catch (const CheckpointError& error) {
    return error.what();
  }
}

TEST(ShardedTensors, RefuseWhatDoesNotMakeTensors) {
  EXPECT_EQ(error_of({run_of_w(5, 12), run_of_w(0, 5)}), "") << "the order of files is free";
  EXPECT_THAT(
      error_of({run_of_w(0, 7), run_of_w(5, 12)}),
      AllOf(HasSubstr("shard-1: `w`: elements from 5 on are also in another shard"), HasSubstr("shard-0")));
  EXPECT_THAT(error_of({run_of_w(0, 12), run_of_w(3, 5)}), HasSubstr("shard-1: `w`: elements from 3 on"));
  EXPECT_THAT(error_of({run_of_w(0, 5), run_of_w(6, 12)}),
              HasSubstr("shard-1: `w`: begins at element 6; no shard holds those from 5 on"));
  EXPECT_THAT(error_of({run_of_w(1, 12)}), HasSubstr("no shard holds those from 0 on"));
  EXPECT_THAT(error_of({run_of_w(0, 5), run_of_w(5, 11)}),
              HasSubstr("shard-1: `w`: ends before element 11 of 12; no shard holds the rest"));
  EXPECT_THAT(error_of({run_of_w(0, 5), run_of_w(5, 12, "[3,4]")}),
              AllOf(HasSubstr("shard-1: `w`: has shape [3, 4], in "), HasSubstr("shard-0 it has [4, 3]")));
  EXPECT_THAT(error_of({run_of_w(0, 5), run_of_w(5, 12, "[4,3]", at::kBFloat16)}),
              HasSubstr("shard-1: `w`: is BF16, in "));
  EXPECT_THAT(error_of({run_of_w(5, 13)}),
              HasSubstr("shard-0: `w`: its 8 elements from 5 on are not within"));
  EXPECT_THAT(error_of({run_of_w(0, 12), run_of_w(12, 12)}),
              HasSubstr("shard-1: `w`: holds no element of it"));
  EXPECT_THAT(error_of({run_of_w(0, 0, "[0,3]"), run_of_w(0, 0, "[0,3]")}),
              HasSubstr("shard-1: `w`: elements from 0 on are also"));
  const Shard whole{{{"w", at::zeros({2})}}, {}};
  EXPECT_EQ(error_of({whole}, Parts::kWhole), "");
  EXPECT_THAT(error_of({whole, whole}, Parts::kWhole),
              HasSubstr("shard-1: `w`: elements from 0 on are also"));
}

TEST(ShardedTensors, RefusePlacesThatSayNothing) {
  EXPECT_THAT(error_of({{{{"w", at::zeros({2})}}, {}}}), HasSubstr("shard-0: `w`: the metadata do not say"));
  for (const char* written :
       {"", "0", "[]", "{}", R"({"shape":[2]})", R"({"begin":0})", R"({"shape":2,"begin":0})",
        R"({"shape":[2],"begin":-1})", R"({"shape":[-2],"begin":0})", R"({"shape":[2],"begin":0.0})",
        R"({"shape":["2"],"begin":0})", R"({"shape":[2],"begin":0,"end":2})",
        R"({"shape":[2],"begin":18446744073709551615})", R"({"shape":[2],"begin":0)"})
    EXPECT_THAT(error_of({{{{"w", at::zeros({2})}}, {{"w", written}}}}), HasSubstr("shard-0: `w`: its place"))
        << written;
  EXPECT_THAT(error_of({{{{"w", at::zeros({2})}}, {{"w", place("[4294967296,4294967296]", 0)}}}}),
              HasSubstr("are not within"));
  EXPECT_THAT(error_of({{{{"w", at::zeros({2, 1})}}, {{"w", place("[2,1]", 0)}}}}),
              HasSubstr("is not one-dimensional"));
  Shard more = run_of_w(0, 12);
  more.places["v"] = place("[1]", 0);
  EXPECT_THAT(error_of({more}), HasSubstr("shard-0: the metadata place `v`"));
}

TEST(ShardedCheckpoint, EachFileIsVerifiedByOne) {
  TemporaryFolder root;
  const std::string folder = save_shared(root.path(), 3, 3);
  const Manifest manifest = read_manifest(folder);
  ASSERT_EQ(manifest.files.size(), 7u);
  for (int64_t i = 0; i < 7; ++i) {
    const std::string path = folder + "/" + manifest.files[static_cast<size_t>(i)].name;
    test::flip_bit(path, 1);
    for (int64_t rank = 0; rank < 4; ++rank) {
      if (rank == i % 4)
        EXPECT_THROW(verify_checkpoint(folder, true, rank, 4), CheckpointError) << i;
      else
        EXPECT_NO_THROW(verify_checkpoint(folder, true, rank, 4)) << i;
    }
    EXPECT_THROW(load_checkpoint(folder), CheckpointError);
    test::flip_bit(path, 1);
  }
  expect_model(folder, 3);
}

TEST(ShardedCheckpoint, ADamagedShardIsNamedAndTheOneBeforeIsUsed) {
  TemporaryFolder root;
  for (const int64_t step : {1, 2}) save_shared(root.path(), step, 3);
  test::flip_bit(root.path("step-00000002/optimizer-00001.safetensors"), 60);
  warnings.clear();
  EXPECT_EQ(load_latest(root.path(), -1, remember)->step, 1);
  ASSERT_EQ(warnings.size(), 1u);
  EXPECT_THAT(warnings[0], HasSubstr("optimizer-00001.safetensors: is damaged"));
}

// Sums that hold, a hole.
TEST(ShardedCheckpoint, NothingGoesInFavourOfShardsThatDoNotFit) {
  TemporaryFolder root;
  save_shared(root.path(), 1, 2);
  const NamedTensors model = model_of(2);
  const WritePoint nowhere;
  CheckpointWriter writer(root.path(), 2, nowhere);
  writer.add_files(2, write_shards(writer.folder(), 0, part_of(model, 0, 2), {}));
  writer.publish();
  save_shared(root.path(), 3, 2);
  EXPECT_NO_THROW(verify_checkpoint(root.path("step-00000002")));
  EXPECT_THROW(load_checkpoint(root.path("step-00000002")), CheckpointError);
  Retention retention(root.path(), 2);
  retention.saved(3);
  expect_model(root.path("step-00000001"), 1);
}

TEST(ShardedCheckpoint, AnErrorAtAnyPointLeavesTheOldOneAlone) {
  TemporaryFolder root;
  save_shared(root.path(), 1, 2);
  int64_t points = 0;
  save_shared(root.path(), 2, 3, [&] { ++points; });
  fs::remove_all(root.path("step-00000002"));
  EXPECT_GT(points, 20);
  bool published = false;
  for (int64_t failing = 1; failing <= points; ++failing) {
    int64_t reached = 0;
    const auto fail = [&] {
      if (++reached == failing) throw CheckpointError("here");
    };
    EXPECT_THROW(save_shared(root.path(), 2, 3, fail), CheckpointError);
    expect_model(root.path("step-00000001"), 1);
    EXPECT_FALSE(fs::exists(root.path("step-00000002.tmp"))) << failing;
    published = fs::exists(root.path("step-00000002"));
    EXPECT_EQ(published, failing == points) << "the last point is the flush of the rename";
    if (published) expect_model(root.path("step-00000002"), 2);
  }
}

}  // namespace
}  // namespace longreach
