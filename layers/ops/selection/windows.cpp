// Counting windows.
#include "layers/ops/selection/windows.h"

#include <ATen/ops/empty.h>

#include "layers/ops/common/check.h"
#include "layers/ops/common/packed_documents.h"

namespace longreach {
namespace {

int64_t windows_in(const PoolWindows& windows, int64_t tokens) {
  if (windows.partial) return ceil_div(tokens, windows.stride);
  return tokens < windows.width ? 0 : (tokens - windows.width) / windows.stride + 1;
}

}  // namespace

namespace selection {

void check_documents(const at::Tensor& cu_seqlens) {
  if (!cu_seqlens.defined()) return;
  expect_dtype(cu_seqlens, "cu_seqlens", {at::kInt});
  const bool bounds = cu_seqlens.numel() >= 1 && cu_seqlens.is_cpu();
  expect_cu_seqlens(cu_seqlens, "cu_seqlens",
                    bounds ? cu_seqlens.const_data_ptr<int32_t>()[cu_seqlens.numel() - 1] : 0);
}

void check_pool(const at::Tensor& x, const std::vector<Pool>& pools, const PoolWindows& windows) {
  expect_shape(x, "x", {-1, -1, -1, -1});
  check<ShapeError>(!pools.empty(), "pools: none, expected at least one");
  if (!windows.cu_seqlens.defined()) return;
  check<ShapeError>(x.size(0) == 1, "x: ", x.size(0), " batch entries, expected 1 with cu_seqlens");
  expect_cu_seqlens(windows.cu_seqlens, "cu_seqlens", x.size(1));
}

std::vector<PackedDocument> document_windows(const PoolWindows& windows, int64_t tokens) {
  check<ShapeError>(windows.width >= 1 && windows.stride >= 1, "width, stride: ", windows.width, " and ",
                    windows.stride, ", expected 1 or more");
  check<ShapeError>(!windows.partial || windows.width == windows.stride, "stride: ", windows.stride,
                    ", expected the width ", windows.width, " where partial windows are kept");
  check_documents(windows.cu_seqlens);
  auto documents = packed_documents(windows.cu_seqlens, windows.cu_seqlens, tokens, tokens, 1);
  place_windows(documents, windows);
  return documents;
}

}  // namespace selection

void place_windows(std::vector<PackedDocument>& documents, const PoolWindows& windows) {
  int64_t window = 0;
  for (PackedDocument& document : documents) {
    document.window = window;
    document.windows = windows_in(windows, document.keys);
    window += document.windows;
  }
}

int64_t window_count(const PoolWindows& windows, int64_t tokens) {
  int64_t count = 0;
  for (const auto& document : selection::document_windows(windows, tokens)) count += document.windows;
  return count;
}

at::Tensor window_cu_seqlens(const PoolWindows& windows) {
  if (!windows.cu_seqlens.defined()) return {};
  at::Tensor bounds = at::empty({windows.cu_seqlens.numel()}, windows.cu_seqlens.options());
  auto* to = bounds.mutable_data_ptr<int32_t>();
  *to = 0;
  for (const auto& document : selection::document_windows(windows, 0))
    *++to = static_cast<int32_t>(document.window + document.windows);
  return bounds;
}

}  // namespace longreach
