// What a rank is about to do, said to all others before it does it (CommConfig::check). Not a public header.
#pragma once
#include <ATen/core/Tensor.h>

#include <string>

#include "distributed/communicator.h"

namespace longreach {

struct Operation {
  std::string name, label;
  int64_t row_bytes = 0;
  Splits in_rows, out_rows;  // to and from each rank
};

// int64 [the same length for every operation of so many ranks]; name and label are cut at 120 bytes.
at::Tensor packed(const Operation& operation);
// all: int64 [ranks, that length]. Throws RankError, the same on every rank, unless all do the same, and
// every rank sends what the receiver expects.
void expect_one_operation(const at::Tensor& all);

}  // namespace longreach
