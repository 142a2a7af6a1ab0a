#include "distributed/gradients.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros_like.h>

namespace longreach {
namespace {

constexpr int64_t kBucketBytes = int64_t{16} << 20;

// Gradients that travel together: of one dtype, end to end.
class Bucket {
 public:
  explicit Bucket(Communicator& group) : group_(group) {}

  void add(const at::Tensor& gradient) {
    const bool fits =
        gradients_.empty() || (gradient.dtype() == gradients_[0].dtype() &&
                               bytes_ + static_cast<int64_t>(gradient.nbytes()) <= kBucketBytes);
    if (!fits) sum();
    gradients_.push_back(gradient);
    bytes_ += static_cast<int64_t>(gradient.nbytes());
  }

  void sum() {
    if (gradients_.empty()) return;
    if (gradients_.size() == 1 && gradients_[0].is_contiguous()) {
      group_.all_reduce(gradients_[0], kLabel);
    } else {
      int64_t elements = 0;
      for (const at::Tensor& gradient : gradients_) elements += gradient.numel();
      const at::Tensor flat = at::empty({elements}, gradients_[0].options());
      for_places(flat, [](const at::Tensor& place, const at::Tensor& gradient) { place.copy_(gradient); });
      group_.all_reduce(flat, kLabel);
      for_places(flat, [](const at::Tensor& place, const at::Tensor& gradient) { gradient.copy_(place); });
    }
    gradients_.clear();
    bytes_ = 0;
  }

 private:
  static constexpr const char* kLabel = "gradients";

  template <class Visit>
  void for_places(const at::Tensor& flat, const Visit& visit) const {
    int64_t begin = 0;
    for (const at::Tensor& gradient : gradients_) {
      visit(flat.narrow(0, begin, gradient.numel()).view(gradient.sizes()), gradient);
      begin += gradient.numel();
    }
  }

  Communicator& group_;
  std::vector<at::Tensor> gradients_;
  int64_t bytes_ = 0;
};

}  // namespace

void sum_gradients(const std::vector<at::Tensor>& parameters, const Group& group) {
  if (!group) return;
  std::vector<int64_t> has;
  for (const at::Tensor& parameter : parameters) has.push_back(parameter.grad().defined() ? 1 : 0);
  has = sum_over(group, has, "gradients");
  Bucket bucket(*group);
  for (size_t i = 0; i < parameters.size(); ++i) {
    if (has[i] == 0) continue;
    at::Tensor& gradient = parameters[i].mutable_grad();
    if (!gradient.defined()) gradient = at::zeros_like(parameters[i].detach());
    bucket.add(gradient.detach());
  }
  bucket.sum();
}

}  // namespace longreach
