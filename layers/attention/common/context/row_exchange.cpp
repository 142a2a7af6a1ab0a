#include "layers/attention/common/context/row_exchange.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <utility>

#include "layers/ops/common/autograd.h"
#include "layers/ops/common/check.h"

namespace longreach {
namespace {

// `intervals` of the rows of x, end to end.
at::Tensor rows_of(const at::Tensor& x, const std::vector<Interval>& intervals) {
  if (intervals.size() == 1) return x.narrow(0, intervals[0].begin, intervals[0].size()).contiguous();
  std::vector<at::Tensor> parts;
  for (const Interval& rows : intervals) parts.push_back(x.narrow(0, rows.begin, rows.size()));
  return parts.empty() ? x.narrow(0, 0, 0).contiguous() : at::cat(parts, 0);
}

std::vector<int64_t> with_rows(const at::Tensor& x, int64_t rows) {
  std::vector<int64_t> shape = x.sizes().vec();
  shape[0] = rows;
  return shape;
}

int64_t sum_of(const Splits& rows) {
  int64_t sum = 0;
  for (const int64_t count : rows) sum += count;
  return sum;
}

class FetchOp final : public FusedOp {
 public:
  FetchOp(std::shared_ptr<const RowExchange> exchange, std::string label)
      : exchange_(std::move(exchange)), label_(std::move(label)) {}

  std::string name() const override { return "fetch"; }

  Tensors forward(const Tensors& inputs, Tensors& saved) const override {
    const at::Tensor x = inputs[0].squeeze(0);
    saved = {at::empty(with_rows(x, 0), x.options())};
    const at::Tensor rows = exchange_->fetch(x, label_);
    // A rank that is alone may have been given its own rows as they lie; an output is a tensor of its own.
    return {
        rows.unsqueeze(0).to(sums_of(x.scalar_type()), /*non_blocking=*/false, /*copy=*/rows.is_alias_of(x))};
  }

  // An undefined gradient is none of this rank; the others have theirs.
  Tensors backward(const Tensors& saved, const Tensors& grads, const std::vector<bool>&) const override {
    const at::Tensor& like = saved[0];
    const at::Tensor d = grads[0].defined() ? grads[0].squeeze(0)
                                            : at::zeros(with_rows(like, exchange_->wanted()),
                                                        like.options().dtype(sums_of(like.scalar_type())));
    return {exchange_->give_back(d, label_ + " gradients").to(like.scalar_type()).unsqueeze(0)};
  }

 private:
  std::shared_ptr<const RowExchange> exchange_;
  std::string label_;
};

}  // namespace

RowExchange::RowExchange(std::shared_ptr<const ContextGroup> context, const SequenceLayout& layout,
                         const Wants& wants)
    : context_(std::move(context)),
      own_(layout.tokens(context_->rank())),
      plan_(plan_fetch(layout, context_->rank(), wants)) {}

int64_t RowExchange::sent() const {
  return sum_of(plan_.send_rows) - plan_.send_rows[static_cast<size_t>(context_->rank())];
}

at::Tensor RowExchange::fetch(const at::Tensor& x, std::string_view label) const {
  check<ShapeError>(x.size(0) == own_, label, ": ", x.size(0), " rows, expected the rank's own ", own_);
  std::vector<Interval> sent;
  for (const auto& intervals : plan_.send) sent.insert(sent.end(), intervals.begin(), intervals.end());
  at::Tensor in = rows_of(x, sent);
  if (context_->alone()) return in;
  const at::Tensor out = at::empty(with_rows(x, sum_of(plan_.receive_rows)), x.options());
  context_->ranks().all_to_all(out, in, plan_.receive_rows, plan_.send_rows, label).wait();
  in.reset();
  return in_order() ? out : rows_of(out, plan_.take);
}

bool RowExchange::in_order() const {
  int64_t at = 0;
  for (const Interval& rows : plan_.take)
    if (std::exchange(at, rows.end) != rows.begin) return false;
  return true;
}

at::Tensor RowExchange::as_they_came(const at::Tensor& d) const {
  at::Tensor rows_of_ranks = at::empty(with_rows(d, plan_.wanted), d.options());
  int64_t at = 0;
  for (const Interval& rows : plan_.take) {
    rows_of_ranks.narrow(0, rows.begin, rows.size()).copy_(d.narrow(0, at, rows.size()));
    at += rows.size();
  }
  return rows_of_ranks;
}

at::Tensor RowExchange::give_back(const at::Tensor& d, std::string_view label) const {
  check<ShapeError>(d.size(0) == plan_.wanted, label, ": ", d.size(0), " rows, expected ", plan_.wanted);
  at::Tensor in = in_order() ? d : as_they_came(d), out = in;
  if (!context_->alone()) {
    out = at::empty(with_rows(d, sum_of(plan_.send_rows)), d.options());
    context_->ranks().all_to_all(out, in, plan_.send_rows, plan_.receive_rows, label).wait();
  }
  in.reset();
  const at::Tensor sum = at::zeros(with_rows(d, own_), d.options());
  const auto add_of = [&](size_t rank) {
    int64_t from = 0;
    for (size_t r = 0; r < rank; ++r) from += plan_.send_rows[r];
    for (const Interval& rows : plan_.send[rank]) {
      sum.narrow(0, rows.begin, rows.size()).add_(out.narrow(0, from, rows.size()));
      from += rows.size();
    }
  };
  const auto own = static_cast<size_t>(context_->rank());
  add_of(own);
  for (size_t rank = 0; rank < plan_.send.size(); ++rank)
    if (rank != own) add_of(rank);
  return sum;
}

at::Tensor fetch(const std::shared_ptr<const RowExchange>& exchange, const at::Tensor& x,
                 const std::string& label) {
  return differentiable(std::make_shared<FetchOp>(exchange, label), {x})[0];
}

}  // namespace longreach
