#include "train/verify/compare.h"

#include <ATen/ops/isfinite.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "core/error.h"

namespace longreach::verify {
namespace {

std::string compare_integers(const at::Tensor& got, const at::Tensor& reference) {
  const at::Tensor wanted = reference.to(at::kDouble), have = got.to(at::kDouble);
  const auto wrong = have.ne(wanted).sum().item<int64_t>();
  return wrong == 0 ? std::string() : text(wrong, " of ", reference.numel(), " integers differ");
}

std::string compare_sets(const at::Tensor& got, const at::Tensor& reference) {
  const int64_t columns = reference.dim() ? reference.size(-1) : 1,
                have_columns = got.dim() ? got.size(-1) : 1;
  const int64_t rows = columns ? reference.numel() / columns : 0;
  if (got.dim() != reference.dim() || (have_columns ? got.numel() / have_columns : 0) != rows)
    return "numbers of rows differ";
  const at::Tensor wanted = reference.to(at::kLong).contiguous(), have = got.to(at::kLong).contiguous();
  const auto row_set = [](const at::Tensor& tensor, int64_t row, int64_t width) {
    const int64_t* first = tensor.const_data_ptr<int64_t>() + row * width;
    std::set<int64_t> members(first, first + width);
    members.erase(-1);
    return members;
  };
  int64_t wrong = 0;
  for (int64_t row = 0; row < rows; ++row)
    wrong += row_set(have, row, have_columns) != row_set(wanted, row, columns);
  return wrong == 0 ? std::string() : text(wrong, " of ", rows, " index sets differ");
}

}  // namespace

double Difference::relative() const {
  if (!broken.empty() || std::isnan(rms)) return std::numeric_limits<double>::infinity();
  if (rms == 0) return 0;
  return reference > 0 ? rms / reference : std::numeric_limits<double>::infinity();
}

Difference difference(const at::Tensor& got, const at::Tensor& reference, bool as_sets) {
  Difference result;
  if (as_sets) {
    result.broken = compare_sets(got, reference);
    return result;
  }
  if (got.sizes() != reference.sizes()) {
    result.broken = text("shape ", got.sizes(), ", expected ", reference.sizes());
    return result;
  }
  if (reference.numel() == 0) return result;
  if (!at::isFloatingType(reference.scalar_type())) {
    result.broken = compare_integers(got, reference);
    return result;
  }
  const at::Tensor wanted = reference.to(at::kDouble), have = got.detach().to(at::kDouble);
  const at::Tensor finite = at::isfinite(wanted);
  const at::Tensor same_special = have.eq(wanted).logical_or(have.isnan().logical_and(wanted.isnan()));
  const auto misplaced = finite.logical_not().logical_and(same_special.logical_not()).sum().item<int64_t>();
  const auto not_finite = finite.logical_and(at::isfinite(have).logical_not()).sum().item<int64_t>();
  if (misplaced + not_finite > 0) {
    result.broken = not_finite > 0 ? text(not_finite, " NaN or infinite where a number is expected")
                                   : text(misplaced, " numbers where NaN or infinity is expected");
    return result;
  }
  const auto count = static_cast<double>(std::max<int64_t>(finite.sum().item<int64_t>(), 1));
  const at::Tensor zero = at::zeros_like(wanted), clean = at::where(finite, wanted, zero);
  result.rms = std::sqrt((at::where(finite, have, zero) - clean).pow(2).sum().item<double>() / count);
  result.reference = std::sqrt(clean.pow(2).sum().item<double>() / count);
  return result;
}

double loosest_relative_limit(at::ScalarType dtype) {
  return dtype == at::kDouble ? 1e-9 : dtype == at::kFloat ? 1e-3 : 1e-1;
}

double relative_limit(at::ScalarType dtype, double own_error) {
  const double least = dtype == at::kDouble ? 1e-9 : dtype == at::kFloat ? 5e-6 : 1e-2;
  return std::min(std::max(least, 2 * own_error), loosest_relative_limit(dtype));
}

double absolute_floor(at::ScalarType dtype, double error, double largest_input, double largest_of_kind) {
  double scale = std::max(1.0, largest_input);
  if (error > loosest_relative_limit(dtype) && largest_of_kind > 0) scale = std::min(scale, largest_of_kind);
  return (dtype == at::kDouble ? 1e-12 : 1e-6) * scale;
}

}  // namespace longreach::verify
