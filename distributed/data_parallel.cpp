#include "distributed/data_parallel.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <map>

#include "core/error.h"
#include "distributed/agreement.h"
#include "distributed/squares.h"
#include "distributed/unit_parameters.h"

namespace longreach {
namespace {

constexpr const char* kGradients = "gradients";

}  // namespace

class DataParallel::Hook : public torch::autograd::PostAccumulateGradHook {
 public:
  Hook(DataParallel& owner, Unit& unit) : owner_(owner), unit_(unit) {}
  void operator()(const at::Tensor& /*parameter*/) override { owner_.arrived(unit_); }

 private:
  DataParallel& owner_;
  Unit& unit_;
};

DataParallel::DataParallel(torch::nn::Module& model,
                           const std::vector<std::shared_ptr<torch::nn::Module>>& units, const Mesh& mesh,
                           int zero_stage)
    : stage_(mesh.shard ? zero_stage : 0), mesh_(own_groups(mesh, stage_ < 3)) {
  check<ConfigError>(zero_stage >= 0 && zero_stage <= 3, "parallel.zero_stage = ", zero_stage,
                     ", expected 0 to 3");
  check<ConfigError>(
      zero_stage < 3 || !units.empty(),
      "parallel.zero_stage = 3 needs units, whose parameters come and go; the model names none");
  make_units(model, units);
  make_runs(model);
  if (mesh_.world) background_ = std::make_unique<Background>();
}

void DataParallel::make_units(const torch::nn::Module& model,
                              const std::vector<std::shared_ptr<torch::nn::Module>>& units) {
  const Group& share = sharded() ? mesh_.shard : nullptr;
  const auto flat = [&](FlatUnit::Named& parameters) {
    return FlatUnit(std::move(parameters), size_of(mesh_.world), size_of(share), rank_in(share));
  };
  for (UnitParameters& parameters : parameters_of_units(model, units)) {
    Unit& unit = *units_.emplace_back(std::make_unique<Unit>(flat(parameters.trained)));
    for (const auto& [name, parameter] : unit.parameters.parameters())
      torch::autograd::impl::set_post_acc_grad_hooks(parameter, std::make_unique<Hook>(*this, unit));
    if (stage_ < 3) continue;
    for (auto& [dtype, frozen] : parameters.frozen) unit.frozen.push_back(flat(frozen));
    unit.parameters.keep_share_alone();
    for (FlatUnit& frozen : unit.frozen) frozen.keep_share_alone();
  }
}

void DataParallel::make_runs(const torch::nn::Module& model) {
  std::map<std::string, std::pair<size_t, size_t>> places;
  for (size_t u = 0; u < units_.size(); ++u) {
    const FlatUnit::Named& parameters = units_[u]->parameters.parameters();
    for (size_t i = 0; i < parameters.size(); ++i) places[parameters[i].first] = {u, i};
  }
  for (const auto& item : model.named_parameters()) {
    const auto place = places.find(item.key());
    if (place == places.end()) continue;
    const auto [u, i] = place->second;
    places_.push_back(place->second);
    runs_.push_back(units_[u]->parameters.run(i));
  }
}

DataParallel::~DataParallel() {
  for (const auto& unit : units_)
    for (const auto& [name, parameter] : unit->parameters.parameters())
      torch::autograd::impl::set_post_acc_grad_hooks(parameter, nullptr);
}

void DataParallel::begin_step() {
  for (const auto& unit : units_) {
    unit->parameters.take_gradients();
    unit->sum = at::Tensor();
    std::fill(unit->has.begin(), unit->has.end(), 0);
  }
  for (Run& run : runs_) run.values.mutable_grad() = at::Tensor();
  summed_ = 0;
  summing_ = false;
  begin_passes();
}

void DataParallel::begin_micro_batch(bool last) {
  flush();
  begin_passes();
  summing_ = last || stage_ >= 2;
  gather(*units_.back());
}

void DataParallel::begin_passes() {
  for (const auto& unit : units_) {
    unit->arrived = 0;
    unit->inputs = 0;
    unit->ready = unit->has.empty();
  }
  next_ = 0;
}

void DataParallel::arrived(Unit& unit) {
  check<Error>(!unit.ready, "a second backward pass in one micro-batch");
  if (++unit.arrived < unit.has.size() || !summing_) return;
  ready(unit);
  release_after_use(unit);
}

// Ranks may see their units ready in any order, and some never; sums keep one order.
void DataParallel::ready(Unit& unit) {
  unit.ready = true;
  for (; next_ < units_.size() && units_[next_]->ready; ++next_) {
    Unit& first = *units_[next_];
    if (first.has.empty()) continue;
    std::vector<at::Tensor> gradients = first.parameters.take_gradients();
    for (size_t i = 0; i < gradients.size(); ++i)
      if (gradients[i].defined()) first.has[i] = 1;
    if (!background_)
      start(first, gradients);
    else
      background_->submit([this, &first, gradients = std::move(gradients)] { start(first, gradients); });
  }
}

// What has not become ready is all there is of it.
void DataParallel::flush() {
  if (!summing_) return;
  for (const auto& unit : units_) {
    if (!unit->ready) ready(*unit);
    release(*unit);
  }
}

// On the thread beside, where there is one.
void DataParallel::start(Unit& unit, const std::vector<at::Tensor>& gradients) {
  const at::NoGradGuard no_grad;
  const at::Tensor sum = summed_over_ranks(unit, unit.parameters.packed(gradients));
  if (unit.sum.defined())
    unit.sum.add_(sum);
  else
    unit.sum = sum;
  ++summed_;
}

// Where several ranks keep the same share each of them sums a part of it, in the order of all ranks.
at::Tensor DataParallel::summed_over_ranks(const Unit& unit, const at::Tensor& flat) const {
  if (!mesh_.world) return flat;
  if (!sharded()) {
    mesh_.world->all_reduce(flat, kGradients);
    return flat;
  }
  if (!mesh_.replicate) return mesh_.world->reduce_scatter(flat, kGradients);
  const int64_t shares = mesh_.shard->size(), parts = mesh_.replicate->size();
  const at::Tensor by_rank = flat.view({shares, parts, -1}).transpose(0, 1).contiguous().view({-1});
  const at::Tensor part = mesh_.world->reduce_scatter(by_rank, kGradients);
  at::Tensor share = at::empty({unit.parameters.elements() / shares}, part.options());
  mesh_.replicate->all_gather(share, part, kGradients).wait();
  return share;
}

void DataParallel::finish() {
  const auto start = std::chrono::steady_clock::now();
  summing_ = true;  // also of a rank that had no micro-batch
  flush();
  summing_ = false;
  if (background_) background_->wait();
  give_gradients();
  waited_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// A gradient that no rank has had stays undefined.
void DataParallel::give_gradients() {
  std::vector<int64_t> has;
  for (const auto& unit : units_) has.insert(has.end(), unit->has.begin(), unit->has.end());
  has = sum_over(mesh_.world, std::move(has), "step");
  size_t first = 0;
  for (const auto& unit : units_) {
    std::copy_n(has.begin() + static_cast<std::ptrdiff_t>(first), unit->has.size(), unit->has.begin());
    first += unit->has.size();
  }
  for (size_t r = 0; r < runs_.size(); ++r) {
    const Unit& unit = *units_[places_[r].first];
    const size_t i = places_[r].second;
    if (unit.has[i] > 0) runs_[r].values.mutable_grad() = unit.parameters.run_of(i, unit.sum);
  }
}

void DataParallel::publish() {
  if (!sharded() || stage_ == 3) return;
  for (const auto& unit : units_)
    if (!unit->has.empty())
      mesh_.shard->all_gather(unit->parameters.flat(), unit->parameters.shard().clone(), "parameters").wait();
}

double DataParallel::squared_norm() const {
  double total = 0;
  for (const auto& unit : units_) {
    if (!unit->sum.defined()) continue;
    const at::Tensor own = sums_of_squares(unit->sum, kSquaresBlock);
    if (!sharded()) {
      total += added(own);
      continue;
    }
    const at::Tensor all = at::empty({own.numel() * mesh_.shard->size()}, own.options());
    mesh_.shard->all_gather(all, own, "norm").wait();
    total += added(all);
  }
  return total;
}

double DataParallel::largest(double own) const {
  if (!sharded()) return own;
  double result = own;
  for (const auto& values : longreach::gather(mesh_.shard, std::vector<double>{own}, "step"))
    if (std::isnan(values[0]) || std::isnan(result))
      result = std::numeric_limits<double>::quiet_NaN();
    else
      result = std::max(result, values[0]);
  return result;
}

Traffic DataParallel::take_traffic() {
  Traffic traffic = longreach::take_traffic(mesh_);
  if (background_) traffic[kGradients].seconds = waited_;
  waited_ = 0;
  return traffic;
}

}  // namespace longreach
