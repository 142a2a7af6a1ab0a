// Data parallelism for any torch module: ranks train different micro-batches, and gradients become their sum,
// while the backward pass runs. A rank may keep a part of the model's state alone (ZeRO, arXiv 1910.02054):
//
//   stage   every rank keeps                        sums of gradients
//   0       all                                     to all ranks
//   1       all but its share of optimizer state    to who updates them, once a step
//   2       and its share of gradients              the same, after each micro-batch
//   3       and its share of parameters             the same; parameters come when a unit needs them
//
// What is updated are Runs: float32 parts of parameters. Sums are taken in the order of ranks, so that D
// ranks with one micro-batch each have, at every stage, the bits of one rank with D micro-batches.
//
//   DataParallel parallel(model, model.units(), mesh, 1);
//   Optimizer optimizer(parallel.runs());                 // updates values by their grad()
//   for (...) {
//     parallel.begin_step();
//     for (i < micro_batches) {
//       parallel.begin_micro_batch(i + 1 == micro_batches);
//       model.loss(...).backward();
//     }
//     parallel.finish();
//     optimizer.step();
//     parallel.publish();
//   }
#pragma once
#include <torch/nn/module.h>

#include <atomic>
#include <memory>
#include <vector>

#include "distributed/background.h"
#include "distributed/flat_unit.h"
#include "distributed/mesh.h"
#include "distributed/run.h"
#include "distributed/unit_guard.h"

namespace longreach {

class DataParallel : public UnitGuard {
 public:
  // units: modules whose parameters travel together, such as layers, in the order of the forward pass; what
  // is left of the model is one more. A unit's trainable parameters become views of one float32 tensor; its
  // frozen ones, at stage 3, of one tensor of each dtype, else they stay as they are. Called by all ranks;
  // zero_stage: 0 where mesh.shard is null. Throws ConfigError naming a trainable parameter that is not
  // float32, or for stage 3 without units.
  DataParallel(torch::nn::Module& model, const std::vector<std::shared_ptr<torch::nn::Module>>& units,
               const Mesh& mesh, int zero_stage);
  ~DataParallel() override;
  DataParallel(const DataParallel&) = delete;
  DataParallel& operator=(const DataParallel&) = delete;

  // The parameters have no gradients then.
  void begin_step();
  // One backward pass follows. last: of the step; stages 0 and 1 sum gradients then.
  void begin_micro_batch(bool last);
  // Nothing is under way any more, and runs have their gradients. Throws RankError.
  void finish();
  // The updated runs of all ranks become everybody's parameters.
  void publish();

  // Stage 3: the model calls these around the passes of each of `units`, by its number; else they do nothing.
  // What is left of the model is there from begin_micro_batch on. All ranks make the same passes.
  void enter(size_t unit, const at::Tensor& x) override;
  void leave(size_t unit, const std::vector<at::Tensor>& outputs) override;
  // Stage 3: all parameters are there while this lives. Made by all ranks, outside of steps.
  class Whole {
   public:
    explicit Whole(DataParallel& parallel);
    ~Whole();
    Whole(const Whole&) = delete;
    Whole& operator=(const Whole&) = delete;

   private:
    DataParallel& parallel_;
  };
  // Stage 3: parameters were written from outside while they were there, on all ranks alike.
  void take_shares();

  // Of every trainable parameter, in their order in the model, on every rank.
  const std::vector<Run>& runs() const { return runs_; }
  // Of the summed gradient as one vector: the same bits on any number of ranks, and on all of them.
  double squared_norm() const;
  // The largest number that a rank has; NaN when one is. Of one that all have, where all keep the same.
  double largest(double own) const;
  // Stages 1 to 3: each rank updates a part of the model alone.
  bool sharded() const { return stage_ > 0; }
  // Stage 3: all that this rank keeps of parameters, also of frozen ones. Else nothing: they are whole.
  std::vector<Run> shares() const;

  // Units whose gradients have been summed since begin_step, counted over micro-batches.
  int64_t summed() const { return summed_; }
  // What has moved since the last call, by label; of "gradients" the seconds are those that finish() waited.
  Traffic take_traffic();

 private:
  struct Unit {
    explicit Unit(FlatUnit flat) : parameters(std::move(flat)), has(parameters.parameters().size(), 0) {}
    FlatUnit parameters;
    std::vector<FlatUnit> frozen;  // stage 3
    std::vector<int64_t> has;      // of each parameter: whether this rank has had a gradient
    size_t arrived = 0;            // gradients of this micro-batch
    bool ready = false;            // they are on their way
    at::Tensor sum;                // of gradients: like the shard
    int64_t inputs = 0;            // stage 3: of its passes, whose gradients are not there yet
  };
  class Hook;

  void begin_passes();
  void make_units(const torch::nn::Module& model,
                  const std::vector<std::shared_ptr<torch::nn::Module>>& units);
  void make_runs(const torch::nn::Module& model);
  Unit& unit_of(size_t number) { return *units_[units_.size() - 2 - number]; }
  void gather(const Unit& unit) const;
  void release(const Unit& unit) const;
  void release_after_use(const Unit& unit) const;
  void arrived(Unit& unit);
  void ready(Unit& unit);
  void flush();
  void start(Unit& unit, const std::vector<at::Tensor>& gradients);
  at::Tensor summed_over_ranks(const Unit& unit, const at::Tensor& flat) const;
  void give_gradients();

  const int stage_;
  const Mesh mesh_;                           // groups of its own: the thread beside uses them
  std::vector<std::unique_ptr<Unit>> units_;  // in the order in which their gradients are summed
  std::vector<Run> runs_;
  std::vector<std::pair<size_t, size_t>> places_;  // of runs: unit, parameter of it
  bool summing_ = false;                           // this micro-batch's gradients travel
  size_t next_ = 0;                                // the unit to be summed next
  int64_t wholes_ = 0;
  std::atomic<int64_t> summed_ = 0;
  double waited_ = 0;
  std::unique_ptr<Background> background_;  // null: one rank; last, so that it ends first
};

}  // namespace longreach
