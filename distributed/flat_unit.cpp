#include "distributed/flat_unit.h"

#include <ATen/core/grad_mode.h>
#include <ATen/native/Resize.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "core/error.h"

namespace longreach {
namespace {

constexpr int64_t kAlignment = 16;  // elements: a cache line of float32

int64_t rounded_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// What a parameter takes of the flat tensor.
int64_t aligned(const at::Tensor& parameter) { return rounded_up(parameter.numel(), kAlignment); }

}  // namespace

int64_t FlatUnit::elements_of(const Named& parameters, int parts) {
  int64_t elements = 0;
  for (const auto& [name, parameter] : parameters) elements += aligned(parameter);
  return rounded_up(elements, kSquaresBlock * parts);
}

FlatUnit::FlatUnit(Named parameters, int parts, int ranks, int rank)
    : parameters_(std::move(parameters)), ranks_(ranks), rank_(rank) {
  const at::NoGradGuard no_grad;
  for (int64_t begin = 0; const auto& [name, parameter] : parameters_) {
    begins_.push_back(begin);
    begin += aligned(parameter);
  }
  elements_ = elements_of(parameters_, parts);
  share_ = elements_ / ranks_;
  if (parameters_.empty()) return;
  flat_ = at::zeros({elements_}, parameters_[0].second.detach().options());
  shard_ = flat_.narrow(0, rank_ * share_, share_);
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const at::Tensor place = whole_of(i, flat_);
    place.copy_(parameters_[i].second);
    parameters_[i].second.set_data(place);
  }
}

void FlatUnit::keep_share_alone() {
  if (!flat_.defined()) return;
  shard_ = shard_.clone();
  release();
}

// Parameters are views of the storage whatever its size.
void FlatUnit::gather(Communicator& ranks) const {
  if (!flat_.defined() || is_whole()) return;
  at::native::resize_bytes_cpu(flat_.storage().unsafeGetStorageImpl(),
                               static_cast<size_t>(elements_) * flat_.element_size());
  ranks.all_gather(flat_, shard_, "parameters").wait();
}

void FlatUnit::release() const {
  if (flat_.defined()) at::native::resize_bytes_cpu(flat_.storage().unsafeGetStorageImpl(), 0);
}

void FlatUnit::take_share() const {
  const at::NoGradGuard no_grad;
  if (flat_.defined()) shard_.copy_(flat_.narrow(0, rank_ * share_, share_));
}

std::vector<at::Tensor> FlatUnit::take_gradients() const {
  std::vector<at::Tensor> gradients;
  for (const auto& [name, parameter] : parameters_) {
    gradients.push_back(parameter.grad());
    parameter.mutable_grad() = at::Tensor();
  }
  return gradients;
}

at::Tensor FlatUnit::packed(const std::vector<at::Tensor>& gradients) const {
  const at::NoGradGuard no_grad;
  at::Tensor flat = at::zeros({elements_}, shard_.options());
  for (size_t i = 0; i < gradients.size(); ++i)
    if (gradients[i].defined()) whole_of(i, flat).copy_(gradients[i]);
  return flat;
}

at::Tensor FlatUnit::run_of(size_t i, const at::Tensor& shard) const {
  const Extent run = run_extent(i);
  return shard.narrow(0, run.begin - rank_ * share_, run.end - run.begin);
}

Run FlatUnit::run(size_t i) const {
  const auto& [name, parameter] = parameters_[i];
  const Extent extent = run_extent(i);
  return {.name = name,
          .shape = parameter.sizes().vec(),
          .begin = extent.begin == extent.end ? 0 : extent.begin - begins_[i],
          .values = run_of(i, shard_)};
}

at::Tensor FlatUnit::whole_of(size_t i, const at::Tensor& flat) const {
  const at::Tensor& parameter = parameters_[i].second;
  return flat.narrow(0, begins_[i], parameter.numel()).view(parameter.sizes());
}

FlatUnit::Extent FlatUnit::run_extent(size_t i) const {
  const int64_t low = rank_ * share_, high = low + share_;
  const int64_t begin = std::clamp(begins_[i], low, high);
  return {begin, std::clamp(begins_[i] + parameters_[i].second.numel(), begin, high)};
}

}  // namespace longreach
