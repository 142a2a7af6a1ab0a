#include "distributed/communicator.h"

#include <ATen/ops/add.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <numeric>

#include "core/error.h"
#include "distributed/operation.h"

namespace longreach {
namespace {

using Clock = std::chrono::steady_clock;

// Larger messages take more time a byte: 64 MB in one piece take twice that of four pieces of 16 MB.
constexpr int64_t kPieceBytes = int64_t{16} << 20;

at::ScalarType sum_dtype(at::ScalarType dtype) {
  if (dtype == at::kDouble || dtype == at::kLong) return dtype;
  return at::kFloat;
}

int64_t total(const Splits& rows) { return std::accumulate(rows.begin(), rows.end(), int64_t{0}); }

void expect_rows(const at::Tensor& x, const char* name, const Splits& rows, int ranks,
                 std::string_view label) {
  check<ShapeError>(static_cast<int>(rows.size()) == ranks, label, ": rows for ", rows.size(),
                    " ranks, expected ", ranks);
  check<ShapeError>(std::all_of(rows.begin(), rows.end(), [](int64_t n) { return n >= 0; }), label,
                    ": a negative number of rows");
  check<ShapeError>(x.dim() >= 1 && x.size(0) == total(rows), label, ": ", name, " has ",
                    x.dim() >= 1 ? x.size(0) : 0, " rows, expected ", total(rows));
  check<ShapeError>(x.is_contiguous(), label, ": ", name, " is not contiguous");
}

int64_t row_bytes(const at::Tensor& x) {
  int64_t bytes = static_cast<int64_t>(x.element_size());
  for (int64_t d = 1; d < x.dim(); ++d) bytes *= x.size(d);
  return bytes;
}

// What rank r holds of n elements that are shared out evenly, the first ranks one more.
int64_t share_of(int64_t n, int ranks, int r) { return n / ranks + (r < n % ranks ? 1 : 0); }

Splits shares(int64_t n, int ranks) {
  Splits rows;
  for (int r = 0; r < ranks; ++r) rows.push_back(share_of(n, ranks, r));
  return rows;
}

// parts [ranks, n] -> sum [n], in the order of ranks.
void sum_parts(const at::Tensor& parts, const at::Tensor& sum) {
  int64_t next = 1;
  at::Tensor to = sum;
  if (parts.size(0) > 1 && parts.dtype() == sum.dtype())
    at::add_out(to, parts[0], parts[next++]);
  else
    to.copy_(parts[0]);
  for (; next < parts.size(0); ++next) to.add_(parts[next]);
}

}  // namespace

Exchange::Exchange(std::unique_ptr<Work> work, LabelTraffic& traffic)
    : work_(std::move(work)), traffic_(&traffic) {}

Exchange::~Exchange() {
  try {
    wait();
  } catch (const std::exception&) {  // who needs the result waits for it, and is told
  }
}

void Exchange::wait() {
  if (!work_) return;
  const auto work = std::move(work_);
  const auto start = Clock::now();
  work->wait();
  traffic_->seconds += std::chrono::duration<double>(Clock::now() - start).count();
}

int Communicator::place_in(const std::vector<int>& members) const {
  const auto place = std::find(members.begin(), members.end(), rank());
  check(place != members.end(), "rank ", rank(), " asks for a group that it is not in");
  return static_cast<int>(place - members.begin());
}

LabelTraffic& Communicator::count(std::string_view label, int64_t bytes) {
  auto found = traffic_.find(label);
  if (found == traffic_.end()) found = traffic_.emplace(label, LabelTraffic{}).first;
  found->second.operations += 1;
  found->second.bytes += bytes;
  return found->second;
}

Exchange Communicator::all_to_all(const at::Tensor& out, const at::Tensor& in, const Splits& out_rows,
                                  const Splits& in_rows, std::string_view label) {
  expect_rows(in, "in", in_rows, size(), label);
  expect_rows(out, "out", out_rows, size(), label);
  check<ShapeError>(in.dtype() == out.dtype() && row_bytes(in) == row_bytes(out), label, ": rows of ",
                    row_bytes(in), " bytes go in, of ", row_bytes(out), " come out");
  if (config_.check) expect_agreement({"all_to_all", std::string(label), row_bytes(in), in_rows, out_rows});
  const int64_t others = total(in_rows) - in_rows[static_cast<size_t>(rank())];
  LabelTraffic& traffic = count(label, others * row_bytes(in));
  return {start_all_to_all({out, in, out_rows, in_rows, std::string(label)}), traffic};
}

Exchange Communicator::all_gather(const at::Tensor& out, const at::Tensor& in, std::string_view label) {
  check<ShapeError>(out.is_contiguous() && in.is_contiguous() && out.numel() == size() * in.numel() &&
                        out.dtype() == in.dtype(),
                    label, ": gathers ", in.numel(), " elements of each of ", size(), " ranks into ",
                    out.numel(), "; expected as many, contiguous, of one dtype");
  if (config_.check) {
    const Splits rows(static_cast<size_t>(size()), in.numel());
    expect_agreement({"all_gather", std::string(label), static_cast<int64_t>(in.element_size()), rows, rows});
  }
  LabelTraffic& traffic = count(label, (size() - 1) * static_cast<int64_t>(in.nbytes()));
  return {start_all_gather({out, in, std::string(label)}), traffic};
}

at::Tensor Communicator::buffer(size_t number, int64_t elements, const at::TensorOptions& options) {
  if (buffers_.size() <= number) buffers_.resize(number + 1);
  at::Tensor& kept = buffers_[number];
  if (!kept.defined() || kept.dtype() != options.dtype() || kept.device() != options.device() ||
      kept.numel() < elements)
    kept = at::empty({elements}, options);
  return kept.narrow(0, 0, elements);
}

at::Tensor Communicator::reduce_scatter(const at::Tensor& in, std::string_view label) {
  check<ShapeError>(in.is_contiguous() && in.numel() % size() == 0, label, ": ", in.numel(),
                    " elements are summed into one part for each of ", size(),
                    " ranks; expected a multiple, contiguous");
  const int64_t n = in.numel() / size();
  const Splits rows(static_cast<size_t>(size()), 1);
  const at::Tensor parts = at::empty({size(), n}, in.options());
  all_to_all(parts, in.view({size(), n}), rows, rows, label).wait();
  const at::Tensor sum = at::empty({n}, in.options().dtype(sum_dtype(in.scalar_type())));
  sum_parts(parts, sum);
  return sum.to(in.scalar_type());
}

void Communicator::all_reduce(const at::Tensor& x, std::string_view label) {
  check<ShapeError>(x.is_contiguous(), label, ": a tensor that is summed must be contiguous");
  const at::Tensor flat = x.view({-1});
  const int64_t piece = std::max<int64_t>(1, kPieceBytes / static_cast<int64_t>(x.element_size()));
  for (int64_t begin = 0; begin < flat.numel(); begin += piece)
    reduce_piece(flat.narrow(0, begin, std::min(piece, flat.numel() - begin)), label);
}

// Every rank sums its share of the piece, and all shares are gathered.
void Communicator::reduce_piece(const at::Tensor& piece, std::string_view label) {
  const int64_t mine = share_of(piece.numel(), size(), rank()), most = share_of(piece.numel(), size(), 0);
  const at::ScalarType dtype = piece.scalar_type();
  const Splits out_rows(static_cast<size_t>(size()), mine);
  const at::Tensor parts = buffer(0, size() * mine, piece.options());
  all_to_all(parts, piece, out_rows, shares(piece.numel(), size()), label).wait();
  const at::Tensor sum = buffer(1, mine, piece.options().dtype(sum_dtype(dtype)));
  sum_parts(parts.view({size(), mine}), sum);
  if (piece.numel() % size() == 0 && dtype == sum_dtype(dtype)) {
    all_gather(piece, sum, label).wait();
    return;
  }
  const at::Tensor share = at::zeros({most}, piece.options()),
                   all = at::empty({size() * most}, piece.options());
  share.narrow(0, 0, mine).copy_(sum);
  all_gather(all, share, label).wait();
  for (int64_t r = 0, begin = 0; r < size(); ++r) {
    const int64_t count = share_of(piece.numel(), size(), static_cast<int>(r));
    piece.narrow(0, begin, count).copy_(all.narrow(0, r * most, count));
    begin += count;
  }
}

// The root deals out shares, and all shares are gathered.
void Communicator::broadcast(const at::Tensor& x, int root, std::string_view label) {
  check<ShapeError>(x.is_contiguous(), label, ": a tensor that is sent must be contiguous");
  const int64_t most = share_of(x.numel(), size(), 0);
  if (most == 0) return;
  at::Tensor padded = x.view({-1});
  if (x.numel() % size() != 0) {
    padded = at::zeros({size() * most}, x.options());
    padded.narrow(0, 0, x.numel()).copy_(x.view({-1}));
  }
  const at::Tensor share = at::empty({most}, x.options());
  Splits none(static_cast<size_t>(size()), 0), from_root = none;
  from_root[static_cast<size_t>(root)] = most;
  const bool sends = rank() == root;
  all_to_all(share, sends ? padded : padded.narrow(0, 0, 0), from_root,
             sends ? Splits(static_cast<size_t>(size()), most) : none, label)
      .wait();
  all_gather(padded, share, label).wait();
  if (padded.data_ptr() != x.data_ptr()) x.view({-1}).copy_(padded.narrow(0, 0, x.numel()));
}

void Communicator::barrier(std::string_view label) {
  const at::Tensor mine = at::zeros({1}, at::kByte), all = at::zeros({size()}, at::kByte);
  all_gather(all, mine, label).wait();
}

void Communicator::expect_agreement(const Operation& operation) {
  const at::Tensor mine = packed(operation), all = at::empty({size(), mine.numel()}, mine.options());
  count("check", (size() - 1) * static_cast<int64_t>(mine.nbytes()));
  start_all_gather({all, mine, "check"})->wait();
  expect_one_operation(all);
}

}  // namespace longreach
