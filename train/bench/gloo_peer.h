// Gloo's own reductions, to compare ours with.
#pragma once
#include <ATen/core/Tensor.h>

#include <memory>

#include "distributed/rendezvous.h"

namespace longreach::bench {

// A group of all ranks, beside the one that is measured.
class GlooPeer {
 public:
  explicit GlooPeer(const Rendezvous& rendezvous);
  ~GlooPeer();
  void all_reduce(const at::Tensor& x);
  void reduce_scatter(const at::Tensor& out, const at::Tensor& in);  // in [ranks n] -> out [n]

 private:
  struct Group;
  std::unique_ptr<Group> group_;
};

}  // namespace longreach::bench
