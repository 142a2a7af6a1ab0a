// Checkpoints of any mesh: whoever saved them, whoever goes on; what a rank reads; what happens to all when
// one rank's part is damaged or cannot be written.
#include "train/rank_checkpoint.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <future>
#include <limits>
#include <memory>
#include <mutex>
#include <set>

#include "distributed/threads.h"
#include "layers/basic/module.h"
#include "tests/support/files.h"
#include "tests/support/small_run.h"
#include "train/gradient_norm.h"
#include "train/optimizer.h"
#include "train/step.h"
#include "train/step_data.h"

namespace longreach {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using Mode = SharedSave::Mode;

constexpr int64_t kTokens = 48;

struct MeshOf {
  int ranks = 1, stage = 0;
  int64_t context = 1, replicate = 1;
};

std::ostream& operator<<(std::ostream& out, const MeshOf& mesh) {
  return out << mesh.ranks << " ranks, stage " << mesh.stage << ", context " << mesh.context << ", replicate "
             << mesh.replicate;
}

RunConfig config_of(const std::string& adapter) {
  RunConfig config = test::small_hybrid_run(kTokens);
  config.adapter.type = adapter;
  return config;
}

data::TrainLoader loader() { return test::small_loader(kTokens, {0, 700, 1500, 1530, 4000}); }

// One rank of a run.
class Job {
 public:
  Job(const Group& world, const MeshOf& mesh, uint64_t seed, const std::string& adapter = "none")
      : config(config_of(adapter)),
        mesh(make_mesh(world, {.replicate = mesh.replicate,
                               .shard = mesh.ranks / mesh.context / mesh.replicate,
                               .context = mesh.context})),
        model(std::make_shared<Transformer>(config.model, seed)) {
    context = context_plan(config, model, this->mesh);
    add_adapters(*model, config.adapter, seed);
    parallel = std::make_unique<DataParallel>(*model, model->units(), this->mesh, mesh.stage);
    model->set_unit_guard(parallel.get());
    optimizer = std::make_unique<AdamW>(parallel->runs(), undecayed_parameters(*model), OptimizerConfig{},
                                        [this](double largest) { return parallel->largest(largest); });
  }

  void train(int64_t steps) {
    config.training.global_batch_size = size_of(mesh.data);
    const StepPlan plan = step_plan(config.training, mesh.data);
    for (const int64_t last = step + steps; step < last; ++step) {
      StepData data = load_step(loader(), config.training, plan, context, step);
      add_other_ranks(data, mesh.data);
      parallel->begin_step();
      backward_of_step(*model, *parallel, data, step, config, {}, mesh);
      parallel->finish();
      update(gradient_norm(*parallel, mesh.world).norm);
    }
  }
  // Without passes: every trained number moves, and has moments.
  void move() {
    for (const Run& run : parallel->runs()) run.values.mutable_grad() = run.values.detach() + 0.5;
    update(1e3);
    ++step;
  }

  std::unique_ptr<SharedSave> begin_save(const std::string& root, const WritePoint& point, Mode mode) const {
    return std::make_unique<SharedSave>(mesh.world, root, step,
                                        saved_part(*model, *parallel, *optimizer, mesh),
                                        std::map<std::string, std::string>{}, point, mode);
  }
  std::string save(const std::string& root, const WritePoint& point = {}, Mode mode = Mode::kWait) const {
    return begin_save(root, point, mode)->publish();
  }
  // Returns the bytes read: of the model, of the optimizer's state.
  std::pair<int64_t, int64_t> load(const std::string& root) {
    const auto checkpoint =
        open_latest(root, -1, fail, std::numeric_limits<int64_t>::max(), true, peers_of(mesh.world));
    EXPECT_TRUE(checkpoint.has_value());
    read_checkpoint(*checkpoint, *model, *parallel, *optimizer);
    step = checkpoint->step();
    return {checkpoint->model().bytes_read(), checkpoint->optimizer().bytes_read()};
  }
  std::vector<Run> kept() const {
    std::vector<Run> all = all_of(model_runs(*model, *parallel));
    for (const Run& run : all_of(optimizer->state())) all.push_back(run);
    return all;
  }

  RunConfig config;
  Mesh mesh;
  std::shared_ptr<Transformer> model;
  ContextPlan context;
  std::unique_ptr<DataParallel> parallel;
  std::unique_ptr<AdamW> optimizer;
  int64_t step = 0;

 private:
  static void fail(const std::string& message) { ADD_FAILURE() << message; }
  void update(double norm) {
    EXPECT_TRUE(optimizer->step(3e-3, norm));
    parallel->publish();
  }
};

void on_ranks(const MeshOf& mesh, const std::function<void(const Group&)>& body) {
  run_ranks(mesh.ranks, [&](const Group& world) { body(mesh.ranks > 1 ? world : nullptr); });
}

std::vector<MeshOf> all_meshes() {
  std::vector<MeshOf> meshes = {{1, 0, 1}};
  for (int ranks = 2; ranks <= 4; ++ranks)
    for (int stage = 0; stage <= 3; ++stage)
      for (int64_t context = 1; context <= 2; ++context)
        if (ranks % context == 0) meshes.push_back({ranks, stage, context});
  meshes.push_back({4, 2, 1, 2});
  meshes.push_back({4, 3, 2, 2});
  return meshes;
}

using Tensors = std::map<std::string, at::Tensor>;

Tensors tensors_in(const std::string& root) {
  const CheckpointContents contents = *load_latest(root, -1, nullptr);
  Tensors tensors(contents.model.begin(), contents.model.end());
  tensors.insert(contents.optimizer.begin(), contents.optimizer.end());
  return tensors;
}

// What a rank keeps is its part of these.
void expect_parts(const Job& job, const Tensors& whole) {
  const std::vector<Run> kept = job.kept();
  std::set<std::string> names;
  for (const Run& run : kept) {
    names.insert(run.name);
    const at::Tensor flat = whole.at(run.name).reshape({-1});
    EXPECT_TRUE(at::equal(run.values.detach().reshape({-1}), flat.narrow(0, run.begin, run.values.numel())))
        << run.name;
  }
  EXPECT_EQ(names.size(), whole.size());
}

void expect_any_mesh_goes_on(const MeshOf& saved, const std::vector<MeshOf>& meshes,
                             const std::string& adapter) {
  SCOPED_TRACE(testing::Message() << "saved on " << saved);
  const TemporaryFolder folder;
  std::mutex mutex;
  on_ranks(saved, [&](const Group& world) {
    Job job(world, saved, 1, adapter);
    job.move();
    job.save(folder.path("root"));
    const std::lock_guard lock(mutex);
    expect_parts(job, tensors_in(folder.path("root")));
  });
  const bool shared = saved.stage > 0;
  EXPECT_EQ(read_manifest(folder.path("root/step-00000001")).version, shared ? 2 : 1);
  EXPECT_EQ(fs::exists(folder.path("root/step-00000001/model-00001.safetensors")), shared);
  const Tensors whole = tensors_in(folder.path("root"));
  for (const MeshOf& mesh : meshes) {
    SCOPED_TRACE(testing::Message() << "loaded on " << mesh);
    on_ranks(mesh, [&](const Group& world) {
      Job job(world, mesh, 2, adapter);
      job.load(folder.path("root"));
      const std::lock_guard lock(mutex);
      EXPECT_EQ(job.step, 1);
      expect_parts(job, whole);
    });
  }
}

TEST(SharedCheckpoint, EveryMeshLoadsThatOfEveryMesh) {
  for (const MeshOf& saved : all_meshes()) expect_any_mesh_goes_on(saved, all_meshes(), "none");
}

// Frozen parameters, which are shared out at stage 3 alone.
TEST(SharedCheckpoint, SoDoAdaptersBesideAFrozenModel) {
  const std::vector<MeshOf> meshes = {{1, 0}, {2, 1}, {3, 2}, {3, 3}, {4, 3}};
  for (const MeshOf& saved : meshes) expect_any_mesh_goes_on(saved, meshes, "lora");
}

TEST(SharedCheckpoint, ARunThatGoesOnIsTheOneThatDidNotStop) {
  for (const int64_t context : {1, 2})
    for (int stage = 0; stage <= 3; ++stage) {
      const MeshOf mesh{2, stage, context};
      SCOPED_TRACE(testing::Message() << mesh);
      const TemporaryFolder folder;
      std::mutex mutex;
      on_ranks(mesh, [&](const Group& world) {
        Job whole(world, mesh, 1), first(world, mesh, 1), second(world, mesh, 2);
        whole.train(5);
        first.train(3);
        first.save(folder.path("root"));
        second.load(folder.path("root"));
        second.train(2);
        const std::vector<longreach::Run> expected = whole.kept(), got = second.kept();
        const std::lock_guard lock(mutex);
        for (size_t i = 0; i < expected.size(); ++i)
          EXPECT_TRUE(at::equal(expected[i].values, got[i].values)) << expected[i].name;
      });
    }
}

int64_t bytes_of(const std::vector<Run>& runs) {
  int64_t bytes = 0;
  for (const Run& run : runs) bytes += static_cast<int64_t>(run.values.nbytes());
  return bytes;
}

TEST(SharedCheckpoint, ARankReadsWhatItKeepsAndNoMore) {
  const TemporaryFolder folder;
  on_ranks({3, 2}, [&](const Group& world) {
    Job job(world, {3, 2}, 1);
    job.move();
    job.save(folder.path("root"));
  });
  const CheckpointContents contents = *load_latest(folder.path("root"), -1, nullptr);
  int64_t model = 0, moments = 0;
  for (const auto& [name, tensor] : contents.model) model += static_cast<int64_t>(tensor.nbytes());
  for (const auto& [name, tensor] : contents.optimizer)
    if (!name.ends_with(".step")) moments += static_cast<int64_t>(tensor.nbytes());
  for (int stage = 0; stage <= 3; ++stage) {
    const MeshOf mesh{4, stage};
    SCOPED_TRACE(testing::Message() << mesh);
    std::mutex mutex;
    int64_t shares = 0, of_moments = 0;
    on_ranks(mesh, [&](const Group& world) {
      Job job(world, mesh, 2);
      const auto [model_bytes, optimizer_bytes] = job.load(folder.path("root"));
      const RankRuns runs = model_runs(*job.model, *job.parallel), state = job.optimizer->state();
      const std::lock_guard lock(mutex);
      EXPECT_EQ(model_bytes, bytes_of(all_of(runs)));
      EXPECT_EQ(optimizer_bytes, bytes_of(all_of(state)));
      if (stage < 3) EXPECT_EQ(model_bytes, model);
      shares += stage == 3 ? bytes_of(runs.own) : 0;
      if (stage == 3) EXPECT_LT(model_bytes, model / 2);
      of_moments += bytes_of(state.own);
    });
    EXPECT_EQ(of_moments, stage == 0 ? 4 * moments : moments) << "every element is read by one rank";
    EXPECT_LE(shares, model);
  }
}

std::vector<std::string> warnings;
std::mutex warnings_mutex;
void remember(const std::string& message) {
  const std::lock_guard lock(warnings_mutex);
  warnings.push_back(message);
}

// Every rank opens the newest of `root`: the steps that they open, or their errors.
std::vector<std::string> opened(int ranks, const std::string& root) {
  std::vector<std::string> outcomes(static_cast<size_t>(ranks));
  warnings.clear();
  run_ranks(ranks, [&](const Group& world) {
    std::string& outcome = outcomes[static_cast<size_t>(world->rank())];
    try {
      const auto found =
          open_latest(root, -1, remember, std::numeric_limits<int64_t>::max(), true, peers_of(world));
      outcome = found ? text(found->step()) : "none";
    } catch (const CheckpointError& error) {
      outcome = error.what();
    }
  });
  return outcomes;
}

void save_steps(const std::string& root, const MeshOf& mesh, int64_t steps) {
  on_ranks(mesh, [&](const Group& world) {
    Job job(world, mesh, 1);
    for (int64_t step = 0; step < steps; ++step) {
      job.move();
      job.save(root);
    }
  });
}

TEST(SharedCheckpoint, DamageMakesAllFallBackAndIsNamedOnce) {
  const TemporaryFolder folder;
  EXPECT_EQ(opened(3, folder.path("none")), std::vector<std::string>(3, "none"));
  save_steps(folder.path("root"), {3, 3}, 2);
  EXPECT_EQ(opened(2, folder.path("root")), std::vector<std::string>(2, "2"));
  for (const ManifestFile& file : read_manifest(folder.path("root/step-00000002")).files) {
    SCOPED_TRACE(file.name);
    const std::string path = folder.path("root/step-00000002/" + file.name);
    test::flip_bit(path, 9);
    for (const int ranks : {1, 2, 4}) {
      EXPECT_EQ(opened(ranks, folder.path("root")),
                std::vector<std::string>(static_cast<size_t>(ranks), "1"));
      ASSERT_EQ(warnings.size(), 1u);
      EXPECT_THAT(warnings[0], HasSubstr(file.name + ": is damaged"));
    }
    test::flip_bit(path, 9);
  }
  fs::remove(folder.path("root/step-00000002/model-00001.safetensors"));
  fs::remove(folder.path("root/step-00000001/manifest.json"));
  const auto errors = opened(3, folder.path("root"));
  EXPECT_EQ(errors, std::vector<std::string>(3, errors[0]));
  EXPECT_THAT(errors[0], HasSubstr("none of its 2 checkpoints can be used"));
  EXPECT_EQ(warnings.size(), 2u);
}

// Sums that hold, shards that do not fit.
TEST(SharedCheckpoint, ShardsThatDoNotFitEachOtherAreRefusedByAll) {
  const TemporaryFolder folder;
  const auto shard = [](int64_t begin, int64_t end, std::vector<int64_t> shape) {
    return std::vector<TensorRun>{{"w", std::move(shape), begin, at::full({end - begin}, 1.0)}};
  };
  const auto refused = [&](const std::vector<TensorRun>& second, const char* why) {
    const WritePoint nowhere;
    CheckpointWriter writer(folder.path("root"), 1, nowhere);
    writer.add_files(2, write_shards(writer.folder(), 0, shard(0, 5, {4, 3}), {}));
    writer.add_files(2, write_shards(writer.folder(), 1, second, {}));
    writer.publish();
    const auto errors = opened(2, folder.path("root"));
    EXPECT_EQ(errors[0], errors[1]);
    EXPECT_THAT(errors[0], HasSubstr(text("model-00001.safetensors: `w`: ", why)));
  };
  refused(shard(4, 12, {4, 3}), "elements from 4 on are also in another shard");
  refused(shard(6, 12, {4, 3}), "begins at element 6; no shard holds those from 5 on");
  refused(shard(5, 12, {3, 4}), "has shape [3, 4], in ");
}

// What `save` throws on each rank; step 1 must stay what it is, and alone.
std::vector<std::string> errors_of_save(const std::string& root, const MeshOf& mesh,
                                        const std::function<void(Job&)>& save) {
  std::vector<std::string> errors(static_cast<size_t>(mesh.ranks));
  on_ranks(mesh, [&](const Group& world) {
    Job job(world, mesh, 1);
    job.move();
    job.move();
    try {
      save(job);
    } catch (const Error& error) {
      errors[static_cast<size_t>(world->rank())] = error.what();
    }
  });
  EXPECT_EQ(opened(mesh.ranks, root), std::vector<std::string>(errors.size(), "1"));
  EXPECT_TRUE(warnings.empty());
  EXPECT_EQ(std::distance(fs::directory_iterator(root), fs::directory_iterator()), 1);
  return errors;
}

TEST(SharedCheckpoint, WhatOneRankCannotWriteFailsOnAllAndLeavesTheOldOne) {
  const TemporaryFolder folder;
  const std::string root = folder.path("root");
  const MeshOf mesh{3, 2};
  save_steps(root, mesh, 1);
  for (const Mode mode : {Mode::kWait, Mode::kBeside})
    for (int failing = 0; failing < mesh.ranks; ++failing)
      for (int64_t point = 1; point <= 7; ++point) {
        SCOPED_TRACE(testing::Message() << "rank " << failing << ", point " << point);
        const auto errors = errors_of_save(root, mesh, [&](const Job& job) {
          int64_t reached = 0;
          const auto fail = [&] {
            if (rank_in(job.mesh.world) == failing && ++reached == point) throw CheckpointError("no room");
          };
          job.save(root, fail, mode);
        });
        for (int rank = 0; rank < mesh.ranks; ++rank)
          EXPECT_EQ(errors[static_cast<size_t>(rank)],
                    rank == failing ? "no room" : text("rank ", failing, ": no room"));
      }
}

// Training goes on, and changes every number, before anything is written.
TEST(SharedCheckpoint, BesideTrainingTheStepThatWasCopiedIsWritten) {
  for (const MeshOf& mesh : {MeshOf{1, 0}, {2, 0}, {3, 1}, {4, 3, 2, 2}}) {
    SCOPED_TRACE(testing::Message() << mesh);
    const TemporaryFolder folder;
    const std::string waited = folder.path("waited"), beside = folder.path("beside");
    on_ranks(mesh, [&](const Group& world) {
      Job job(world, mesh, 1);
      job.move();
      job.save(waited);
      std::promise<void> moved;
      int64_t before = rank_in(job.mesh.world) == 0 ? 2 : 0;  // points where the folder is made
      const auto until_moved = [&before, moved_at = moved.get_future().share()] {
        if (before-- <= 0) moved_at.wait();
      };
      const auto save = job.begin_save(beside, until_moved, Mode::kBeside);
      EXPECT_FALSE(fs::exists(beside + "/step-00000001"));
      job.move();
      moved.set_value();
      save->publish();
      EXPECT_TRUE(save->written());
    });
    const Tensors expected = tensors_in(waited), got = tensors_in(beside);
    ASSERT_EQ(expected.size(), got.size());
    for (const auto& [name, tensor] : expected) EXPECT_TRUE(at::equal(tensor, got.at(name))) << name;
  }
}

TEST(SharedCheckpoint, ANumberThatIsNotFiniteIsNotWritten) {
  const TemporaryFolder folder;
  const std::string root = folder.path("root");
  const MeshOf mesh{2, 3};
  save_steps(root, mesh, 1);
  const auto errors = errors_of_save(root, mesh, [&](const Job& job) {
    if (rank_in(job.mesh.world) == 1)
      for (const longreach::Run& run : job.optimizer->state().own)
        run.values.fill_(std::numeric_limits<double>::quiet_NaN());
    job.save(root);
  });
  EXPECT_THAT(errors[1], HasSubstr("no checkpoint of step 2 is written: "));
  EXPECT_EQ(errors[0], "rank 1: " + errors[1]);
}

}  // namespace
}  // namespace longreach
