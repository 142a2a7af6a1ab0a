// Kernels as their own launch plans start them on named problems: threads and shared memory a block for the
// static report, arithmetic and least traffic for its estimates. The pointers in the launches lead nowhere.
//
// Work is counted as the mathematics needs it: visible pairs alone, each operand moved once. Passes over
// small tables have none. What a kernel computes twice (scores in the backward pass) is its own affair, but
// for the products that it cannot do without: dQ needs three, dK and dV four.
#pragma once
#include <functional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "layers/ops/cuda/launch.h"
#include "layers/ops/cuda/occupancy.h"
#include "layers/ops/dtype.h"

namespace longreach::cuda {

struct NamedLaunch {
  Launch launch;
  std::string problem;
  Work work;
};

// Every kernel once, with the first problem that starts it.
class NamedLaunches {
 public:
  using WorkOf = std::function<Work(const std::string& kernel)>;

  void add(const std::string& problem, const std::vector<Launch>& launches, const WorkOf& work) {
    for (const Launch& launch : launches)
      if (seen_.insert(launch.kernel).second) all_.push_back({launch, problem, work(launch.kernel)});
  }
  std::vector<NamedLaunch> take() { return std::move(all_); }

 private:
  std::vector<NamedLaunch> all_;
  std::set<std::string> seen_;
};

// What the problems of the operators have in common.
namespace problem {

inline constexpr int64_t kTokens = 8192, kHeads = 16;
inline constexpr int64_t kListed = 16;  // blocks of keys a row of lists
inline constexpr DType kDtypes[] = {DType::kBFloat16, DType::kFloat16, DType::kFloat32};

// Plans look at alignment and at null alone.
template <class T = void>
T* nowhere() {
  return reinterpret_cast<T*>(uintptr_t{256});
}

inline double bytes_of(DType dtype) { return dtype == DType::kFloat32 ? 4 : 2; }
inline Arithmetic arithmetic_of(DType dtype) {
  return dtype == DType::kFloat32 ? Arithmetic::kTf32x3 : Arithmetic::kHalf;
}

// `moved`: bytes a launch, but for the kernels that add up its small results.
inline NamedLaunches::WorkOf traffic(double moved) {
  return [moved](const std::string& kernel) {
    return kernel == "column_sums" || kernel == "loss_sum" ? Work{} : Work{0, moved, Arithmetic::kHalf};
  };
}

}  // namespace problem
}  // namespace longreach::cuda
