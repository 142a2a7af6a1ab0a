// What ranks keep of parameters at stage 3, and how they become whole: they come when a unit is used and go
// when it is not.
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/function.h>

#include "distributed/data_parallel.h"

namespace longreach {
namespace {

// A pass that runs in the backward pass is the recomputation of a unit whose own backward pass follows.
bool in_backward_pass() { return torch::autograd::get_current_node() != nullptr; }

}  // namespace

std::vector<Run> DataParallel::shares() const {
  if (stage_ < 3) return {};
  std::vector<Run> all = runs_;
  for (const auto& unit : units_)
    for (const FlatUnit& frozen : unit->frozen)
      for (size_t i = 0; i < frozen.parameters().size(); ++i) all.push_back(frozen.run(i));
  return all;
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
