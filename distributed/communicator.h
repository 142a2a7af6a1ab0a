// The only way from rank to rank: two operations that a transport implements, and what is made of them.
//
// Sums are taken in the order of ranks, in float32 (float64 of float64, int64 of int64): they have the same
// bits on every transport, and those that one process gets by adding one rank's tensor after the other.
// All ranks of a group call the same operations in the same order.
#pragma once
#include <ATen/core/Tensor.h>

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "distributed/rank_error.h"

namespace longreach {

// Rows (of dim 0) to or from each rank.
using Splits = std::vector<int64_t>;

struct Operation;

struct CommConfig {
  std::chrono::milliseconds timeout{100'000};  // of one exchange
  bool check = false;  // compare operation, label and sizes of all ranks before each exchange
};

// What one label has moved.
struct LabelTraffic {
  int64_t operations = 0, bytes = 0;  // bytes: what left this rank for others
  double seconds = 0;                 // waited
};
using Traffic = std::map<std::string, LabelTraffic, std::less<>>;

// An exchange under way. It ends with wait(), or with the object, which must not outlive its communicator.
class Exchange {
 public:
  class Work {
   public:
    virtual ~Work() = default;
    virtual void wait() = 0;
  };
  Exchange(std::unique_ptr<Work> work, LabelTraffic& traffic);
  Exchange(Exchange&&) noexcept = default;
  Exchange& operator=(Exchange&&) = delete;
  ~Exchange();

  // The result lies in `out` afterwards. Throws RankError; the group is of no use after that.
  void wait();

 private:
  std::unique_ptr<Work> work_;
  LabelTraffic* traffic_;
};

class Communicator {
 public:
  explicit Communicator(const CommConfig& config) : config_(config) {}
  virtual ~Communicator() = default;
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  virtual int rank() const = 0;
  virtual int size() const = 0;

  // in [sum of in_rows, ...] -> out [sum of out_rows, ...], contiguous, same dtype and row: rows in_rows[r]
  // go to rank r, out_rows[r] come from it, in the order of ranks. Both must live, `in` unchanged, until the
  // end. Throws ShapeError for tensors that do not fit the rows.
  Exchange all_to_all(const at::Tensor& out, const at::Tensor& in, const Splits& out_rows,
                      const Splits& in_rows, std::string_view label);
  // in, of one size on all ranks -> out: that of rank 0, of rank 1, ... one after the other. Contiguous.
  Exchange all_gather(const at::Tensor& out, const at::Tensor& in, std::string_view label);

  // in [size n] -> [n], of in's dtype: the sum of what every rank has for this one.
  at::Tensor reduce_scatter(const at::Tensor& in, std::string_view label);
  // x, contiguous, becomes the sum over ranks.
  void all_reduce(const at::Tensor& x, std::string_view label);
  // x, contiguous, becomes that of rank `root`.
  void broadcast(const at::Tensor& x, int root, std::string_view label);
  void barrier(std::string_view label);

  // A group of some ranks of this one, in the order given. All ranks call it, each with the group that it is
  // in, in the same order.
  virtual std::shared_ptr<Communicator> split(const std::vector<int>& members) = 0;

  const CommConfig& config() const { return config_; }
  const Traffic& traffic() const { return traffic_; }
  void forget_traffic() { traffic_.clear(); }

 protected:
  // This rank's number in a group of these. Throws UserError when it is not among them.
  int place_in(const std::vector<int>& members) const;

  struct AllToAll {
    at::Tensor out, in;
    Splits out_rows, in_rows;
    std::string label;
  };
  struct AllGather {
    at::Tensor out, in;
    std::string label;
  };

 private:
  virtual std::unique_ptr<Exchange::Work> start_all_to_all(AllToAll exchange) = 0;
  virtual std::unique_ptr<Exchange::Work> start_all_gather(AllGather exchange) = 0;

  LabelTraffic& count(std::string_view label, int64_t bytes);
  void expect_agreement(const Operation& operation);
  void reduce_piece(const at::Tensor& piece, std::string_view label);
  at::Tensor buffer(size_t number, int64_t elements, const at::TensorOptions& options);

  CommConfig config_;
  Traffic traffic_;
  std::vector<at::Tensor> buffers_;  // of reductions, kept: their pages are there
};

// Ranks that exchange; null: this one alone.
using Group = std::shared_ptr<Communicator>;

// This rank's number in the group, and how many it has.
inline int rank_in(const Group& group) { return group ? group->rank() : 0; }
inline int size_of(const Group& group) { return group ? group->size() : 1; }

}  // namespace longreach
