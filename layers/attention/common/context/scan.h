// The scan: what state enters each span of a row that several ranks share, from the states that the spans
// before it leave.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "distributed/context_group.h"

namespace longreach {

// A document that goes on from one span into the next.
struct Crossing {
  int64_t token = 0;               // where the later span begins
  int from = 0, to = 0;            // owners
  int64_t leaves = 0, enters = 0;  // its number among the crossings that leave `from`, that enter `to`
  bool through = false;            // it entered the earlier span too: the crossing before this one
};

// All of a layout, in the order of the row.
std::vector<Crossing> crossings(const SequenceLayout& layout);

// For crossings in the order of the row, states [H, Dk, Dv] (float32 or float64):
//
//   enters = leaves + factor * (through: enters of the crossing before)
//
// with leaves: the state that the document leaves when it starts the earlier span from zero; factor [H, 1] or
// [H, Dk]: what is left of a state when it has passed that span. Heads are shared out: each rank scans some
// of them for the whole row. States go there and back by one all_to_all each, those of crossings alone. Where
// C of all L crossings leave this rank, E enter it, h of H heads are scanned here (H r / P to H (r + 1) / P),
// and a factor has W = 1 or Dk numbers, the rank sends
//
//   forward   [C (H - h) (Dk Dv + W) + (L - E) h Dk Dv] x 4 bytes (8 of float64)
//   backward  [E (H - h) Dk Dv       + (L - C) h Dk Dv] x 4
//
// whatever the number of tokens: over all ranks, less than two states a span. All ranks of the group call
// forward, and backward, in the same order, whatever they own.
class StateScan {
 public:
  // label: of forward's exchanges; backward's is label + ".backward".
  StateScan(std::shared_ptr<const ContextGroup> group, std::string label);

  struct Entering {
    at::Tensor states;   // [E, H, Dk, Dv]
    at::Tensor factors;  // [L, h, W]: for backward
  };
  // leaves [C, H, Dk, Dv], factors [C, H, W]: of the crossings that leave this rank, in the order of the row.
  Entering forward(const at::Tensor& leaves, const at::Tensor& factors) const;
  // grad_states [E, H, Dk, Dv]: what this rank's own tokens give -> [C, H, Dk, Dv]: the gradient of what has
  // left this rank, through all spans that come after. That of the factors is not among the results: who runs
  // its own pass from the states that enter, to the gradients of those that leave, has it there.
  at::Tensor backward(const at::Tensor& grad_states, const at::Tensor& factors) const;

  // Numbers that this rank sends, by the formulae above; factor: W.
  struct Sent {
    int64_t forward = 0, backward = 0;
  };
  Sent sent(int64_t heads, int64_t dk, int64_t dv, int64_t factor) const;
  std::string backward_label() const { return label_ + ".backward"; }

 private:
  std::vector<int64_t> shares(int64_t heads) const;
  at::Tensor to_home(const at::Tensor& x, const std::vector<int64_t>& counts, const std::string& label) const;
  at::Tensor from_home(const at::Tensor& x, int64_t heads, const std::vector<int64_t>& counts,
                       const std::string& label) const;

  std::shared_ptr<const ContextGroup> group_;
  std::string label_;
  std::vector<Crossing> crossings_;
  std::vector<int64_t> leaving_, entering_;  // crossings of each rank
};

}  // namespace longreach
