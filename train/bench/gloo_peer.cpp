#include "train/bench/gloo_peer.h"

#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

namespace longreach::bench {

struct GlooPeer::Group {
  c10::intrusive_ptr<c10d::ProcessGroupGloo> gloo;
};

GlooPeer::GlooPeer(const Rendezvous& rendezvous) : group_(std::make_unique<Group>()) {
  const auto options = c10d::ProcessGroupGloo::Options::create();
  options->threads = 2;
  options->devices.push_back(c10d::ProcessGroupGloo::createDeviceForHostname(rendezvous.own_address()));
  const Environment& environment = rendezvous.environment();
  group_->gloo = c10::make_intrusive<c10d::ProcessGroupGloo>(
      c10::make_intrusive<c10d::PrefixStore>("peer", rendezvous.store()), environment.rank, environment.world,
      options);
}

GlooPeer::~GlooPeer() = default;

void GlooPeer::all_reduce(const at::Tensor& x) {
  std::vector<at::Tensor> tensors = {x};
  group_->gloo->allreduce(tensors)->wait();
}

void GlooPeer::reduce_scatter(const at::Tensor& out, const at::Tensor& in) {
  at::Tensor to = out, from = in;
  group_->gloo->_reduce_scatter_base(to, from)->wait();
}

}  // namespace longreach::bench
