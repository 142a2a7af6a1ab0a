// How shares become whole: state that is saved, and, at stage 3, parameters, which come when a unit is used
// and go when it is not.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/function.h>

#include "distributed/data_parallel.h"

namespace longreach {
namespace {

// A pass that runs in the backward pass is the recomputation of a unit whose own backward pass follows.
bool in_backward_pass() { return torch::autograd::get_current_node() != nullptr; }

}  // namespace

std::vector<at::Tensor> DataParallel::gathered(const std::vector<at::Tensor>& parts,
                                               std::string_view label) const {
  std::vector<at::Tensor> whole;
  const bool first = rank_in(mesh_.world) == 0;
  if (!sharded()) {
    for (size_t r = 0; first && r < parts.size(); ++r) whole.push_back(parts[r].view(runs_[r].shape));
    return whole;
  }
  std::vector<at::Tensor> flats;
  for (size_t u = 0; u < units_.size(); ++u) {
    const FlatUnit& unit = units_[u]->parameters;
    flats.emplace_back();
    if (units_[u]->has.empty()) continue;
    const at::Tensor share = at::zeros_like(unit.shard());
    for (size_t r = 0; r < parts.size(); ++r)
      if (places_[r].first == u) unit.run_of(places_[r].second, share).copy_(parts[r]);
    const bool root = mesh_.shard->rank() == 0;
    const auto ranks = static_cast<size_t>(mesh_.shard->size());
    Splits to(ranks, 0), from(ranks, root ? share.numel() : 0);
    to[0] = share.numel();
    flats.back() = at::empty({root ? unit.elements() : 0}, share.options());
    mesh_.shard->all_to_all(flats.back(), share, from, to, label).wait();
  }
  if (!first) return whole;
  for (const auto& [u, i] : places_) whole.push_back(units_[u]->parameters.whole_of(i, flats[u]));
  return whole;
}

void DataParallel::gather(const Unit& unit) const {
  if (stage_ < 3) return;
  unit.parameters.gather(*mesh_.shard);
  for (const FlatUnit& frozen : unit.frozen) frozen.gather(*mesh_.shard);
}

void DataParallel::release(const Unit& unit) const {
  if (stage_ < 3 || wholes_ > 0) return;
  unit.parameters.release();
  for (const FlatUnit& frozen : unit.frozen) frozen.release();
}

// What reads a trainable parameter in the backward pass has done so when its gradient is there; what reads a
// frozen one, when the gradients are there of what it leads to: trainable parameters, and the unit's input.
void DataParallel::release_after_use(const Unit& unit) const {
  if (unit.inputs == 0 && unit.arrived == unit.has.size() && &unit != units_.back().get()) release(unit);
}

void DataParallel::enter(size_t number, const at::Tensor& x) {
  if (stage_ < 3) return;
  Unit& unit = unit_of(number);
  gather(unit);
  if (!at::GradMode::is_enabled() || !x.requires_grad()) return;
  ++unit.inputs;
  x.register_hook([this, &unit](const at::Tensor& /*gradient*/) {
    --unit.inputs;
    release_after_use(unit);
  });
}

void DataParallel::leave(size_t number, const std::vector<at::Tensor>& outputs) {
  if (stage_ < 3 || in_backward_pass()) return;
  const Unit& unit = unit_of(number);
  for (const at::Tensor& output : outputs)
    if (output.requires_grad())
      output.register_hook([this, &unit](const at::Tensor& /*gradient*/) { gather(unit); });
  release(unit);
}

DataParallel::Whole::Whole(DataParallel& parallel) : parallel_(parallel) {
  ++parallel_.wholes_;
  for (const auto& unit : parallel_.units_) parallel_.gather(*unit);
}

DataParallel::Whole::~Whole() {
  --parallel_.wholes_;
  for (const auto& unit : parallel_.units_) parallel_.release(*unit);
}

void DataParallel::take_shares() {
  if (stage_ < 3) return;
  for (const auto& unit : units_) {
    unit->parameters.take_share();
    for (const FlatUnit& frozen : unit->frozen) frozen.take_share();
  }
}

}  // namespace longreach
