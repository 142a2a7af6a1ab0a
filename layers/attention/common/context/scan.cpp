#include "layers/attention/common/context/scan.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>

#include <numeric>

#include "layers/attention/common/context/intervals.h"

namespace longreach {
namespace {

// Where each rank's own begin when those of all lie in the order of ranks.
std::vector<int64_t> begins(const std::vector<int64_t>& counts) {
  std::vector<int64_t> at(counts.size());
  std::exclusive_scan(counts.begin(), counts.end(), at.begin(), int64_t{0});
  return at;
}

int64_t total(const std::vector<int64_t>& counts) {
  return std::accumulate(counts.begin(), counts.end(), int64_t{0});
}

size_t index(int rank) { return static_cast<size_t>(rank); }

}  // namespace

std::vector<Crossing> crossings(const SequenceLayout& layout) {
  std::vector<Crossing> result;
  std::vector<int64_t> leaving(index(layout.ranks()), 0), entering = leaving;
  for (size_t i = 1; i < layout.spans().size(); ++i) {
    const Span &before = layout.spans()[i - 1], &span = layout.spans()[i];
    const int64_t begin = layout.document_of(span.begin).begin;
    if (begin == span.begin) continue;
    result.push_back({.token = span.begin,
                      .from = before.owner,
                      .to = span.owner,
                      .leaves = leaving[index(before.owner)]++,
                      .enters = entering[index(span.owner)]++,
                      .through = begin < before.begin});
  }
  return result;
}

StateScan::StateScan(std::shared_ptr<const ContextGroup> group, std::string label)
    : group_(std::move(group)),
      label_(std::move(label)),
      crossings_(crossings(group_->layout())),
      leaving_(index(group_->layout().ranks()), 0),
      entering_(leaving_) {
  for (const Crossing& crossing : crossings_) {
    ++leaving_[index(crossing.from)];
    ++entering_[index(crossing.to)];
  }
}

// How many heads each rank scans.
std::vector<int64_t> StateScan::shares(int64_t heads) const {
  const int64_t ranks = group_->layout().ranks();
  std::vector<int64_t> result;
  for (int64_t r = 0; r < ranks; ++r) result.push_back(part_of(heads, r, ranks).size());
  return result;
}

// x [counts of this rank, H, X] -> [sum of counts, heads scanned here, X], in the order of ranks.
at::Tensor StateScan::to_home(const at::Tensor& x, const std::vector<int64_t>& counts,
                              const std::string& label) const {
  const std::vector<int64_t> heads = shares(x.size(1));
  const int64_t mine = heads[index(group_->rank())];
  Splits there, here;
  for (size_t r = 0; r < counts.size(); ++r) {
    there.push_back(heads[r] * x.size(0));
    here.push_back(mine * counts[r]);
  }
  const at::Tensor rows = at::empty({mine * total(counts), x.size(2)}, x.options());
  group_->ranks()
      .all_to_all(rows, x.transpose(0, 1).reshape({-1, x.size(2)}).contiguous(), here, there, label)
      .wait();
  std::vector<at::Tensor> parts;
  for (size_t r = 0, row = 0; r < counts.size(); row += static_cast<size_t>(here[r++]))
    parts.push_back(rows.narrow(0, static_cast<int64_t>(row), here[r])
                        .view({mine, counts[r], x.size(2)})
                        .transpose(0, 1));
  return at::cat(parts);
}

// The way back: x [sum of counts, heads scanned here, X] -> [counts of this rank, H, X].
at::Tensor StateScan::from_home(const at::Tensor& x, int64_t heads, const std::vector<int64_t>& counts,
                                const std::string& label) const {
  const std::vector<int64_t> shared = shares(heads), at = begins(counts);
  const int64_t own = counts[index(group_->rank())];
  Splits there, here;
  std::vector<at::Tensor> parts;
  for (size_t r = 0; r < counts.size(); ++r) {
    there.push_back(x.size(1) * counts[r]);
    here.push_back(shared[r] * own);
    parts.push_back(x.narrow(0, at[r], counts[r]).transpose(0, 1).reshape({-1, x.size(2)}));
  }
  const at::Tensor rows = at::empty({heads * own, x.size(2)}, x.options());
  group_->ranks().all_to_all(rows, at::cat(parts), here, there, label).wait();
  return rows.view({heads, own, x.size(2)}).transpose(0, 1);
}

StateScan::Entering StateScan::forward(const at::Tensor& leaves, const at::Tensor& factors) const {
  const int64_t heads = leaves.size(1), dk = leaves.size(2), dv = leaves.size(3);
  const at::Tensor all = to_home(at::cat({leaves.flatten(2), factors}, 2), leaving_, label_);
  const int64_t mine = all.size(1), size = dk * dv;
  const at::Tensor states = all.narrow(2, 0, size).reshape({all.size(0), mine, dk, dv}),
                   kept = all.narrow(2, size, factors.size(2)).contiguous(),
                   enters = at::empty({all.size(0), mine, dk, dv}, leaves.options());
  const std::vector<int64_t> from = begins(leaving_), to = begins(entering_);
  at::Tensor state;
  for (const Crossing& crossing : crossings_) {
    const int64_t left = from[index(crossing.from)] + crossing.leaves;
    state = crossing.through ? states[left] + kept[left].unsqueeze(-1) * state : states[left];
    enters[to[index(crossing.to)] + crossing.enters].copy_(state);
  }
  const at::Tensor own = from_home(enters.flatten(2), heads, entering_, label_);
  return {own.reshape({own.size(0), heads, dk, dv}), kept};
}

at::Tensor StateScan::backward(const at::Tensor& grad_states, const at::Tensor& factors) const {
  const int64_t heads = grad_states.size(1), dk = grad_states.size(2), dv = grad_states.size(3);
  const std::string label = backward_label();
  const at::Tensor all = to_home(grad_states.flatten(2), entering_, label);
  const int64_t mine = all.size(1);
  const at::Tensor grads = all.view({all.size(0), mine, dk, dv}),
                   leaves = at::empty(grads.sizes(), grads.options());
  const std::vector<int64_t> from = begins(leaving_), to = begins(entering_);
  at::Tensor later;  // what comes back from the crossing after this one
  for (auto crossing = crossings_.rbegin(); crossing != crossings_.rend(); ++crossing) {
    at::Tensor grad = grads[to[index(crossing->to)] + crossing->enters];
    if (later.defined()) grad = grad + later;
    const int64_t left = from[index(crossing->from)] + crossing->leaves;
    leaves[left].copy_(grad);
    later = crossing->through ? factors[left].unsqueeze(-1) * grad : at::Tensor();
  }
  const at::Tensor own = from_home(leaves.flatten(2), heads, leaving_, label);
  return own.reshape({own.size(0), heads, dk, dv});
}

StateScan::Sent StateScan::sent(int64_t heads, int64_t dk, int64_t dv, int64_t factor) const {
  const size_t rank = index(group_->rank());
  const int64_t here = shares(heads)[rank], others = heads - here, all = total(leaving_),
                leaves = leaving_[rank], enters = entering_[rank], state = dk * dv;
  return {.forward = leaves * others * (state + factor) + (all - enters) * here * state,
          .backward = enters * others * state + (all - leaves) * here * state};
}

}  // namespace longreach
