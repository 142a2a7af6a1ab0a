// Parameters that travel together: one flat tensor that they are views of, shared out evenly among ranks.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "distributed/communicator.h"
#include "distributed/run.h"

namespace longreach {

// Elements whose squares are summed before sums are added. Ranks' shares begin at multiples of it, so that a
// sum of squares does not depend on how many there are.
constexpr int64_t kSquaresBlock = 1024;

class FlatUnit {
 public:
  using Named = std::vector<std::pair<std::string, at::Tensor>>;

  // Parameters of one dtype and device. Each lies at a multiple of 16 elements, whatever the number of ranks;
  // the end is padded with zeros, to blocks for each of `parts`. This rank keeps share `rank` of `ranks`,
  // which divides `parts`.
  FlatUnit(Named parameters, int parts, int ranks, int rank);
  // As many as that has, padding included.
  static int64_t elements_of(const Named& parameters, int parts);

  const Named& parameters() const { return parameters_; }
  int64_t elements() const { return elements_; }
  int ranks() const { return ranks_; }
  const at::Tensor& flat() const { return flat_; }
  const at::Tensor& shard() const { return shard_; }

  // From now on this rank keeps its share alone; the parameters are there between gather() and release().
  void keep_share_alone();
  bool is_whole() const { return flat_.defined() && flat_.storage().nbytes() > 0; }
  void gather(Communicator& ranks) const;
  void release() const;
  // The share becomes what is in the parameters, which are there.
  void take_share() const;

  // Gradients of the parameters, which have none afterwards; undefined where there is none.
  std::vector<at::Tensor> take_gradients() const;
  // Laid out like the parameters, zero where there is none.
  at::Tensor packed(const std::vector<at::Tensor>& gradients) const;

  // What this rank keeps of parameter i, as a part of `shard`, which is laid out like the unit's own.
  at::Tensor run_of(size_t i, const at::Tensor& shard) const;
  // Of the unit's own.
  Run run(size_t i) const;
  // Parameter i as a part of `flat`, which is laid out like the unit's own.
  at::Tensor whole_of(size_t i, const at::Tensor& flat) const;

 private:
  struct Extent {
    int64_t begin, end;
  };
  Extent run_extent(size_t i) const;  // in the flat tensor

  Named parameters_;
  std::vector<int64_t> begins_;
  int64_t elements_ = 0, share_ = 0;
  int ranks_, rank_;
  at::Tensor flat_, shard_;
};

}  // namespace longreach
