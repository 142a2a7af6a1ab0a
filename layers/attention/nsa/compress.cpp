// phi: windows of tokens to compressed tokens. Means go through pool_blocks; the learned forms gather each
// window's tokens, l / d times the keys in memory, and are projections.
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/zeros.h>

#include "layers/attention/nsa/nsa.h"
#include "layers/basic/linear.h"
#include "layers/ops/common/check.h"

namespace longreach {
namespace {

// The tokens of every window, document by document: int64 [M l] into the row, `tokens` for those before a
// document's first.
at::Tensor window_tokens(const NsaOptions& options, const PoolWindows& windows, int64_t tokens) {
  const int64_t block = options.compress_block, stride = options.compress_stride;
  const int64_t lead = options.form == NsaForm::lucidrains ? block - stride : 0;
  const at::Tensor index = at::empty({window_count(windows, tokens) * block}, at::kLong);
  auto* to = index.mutable_data_ptr<int64_t>();
  const auto append = [&](int64_t first_token, int64_t count) {
    for (int64_t i = 0; i < count; ++i)
      for (int64_t j = 0; j < block; ++j) {
        const int64_t token = i * stride - lead + j;
        *to++ = token < 0 ? tokens : first_token + token;
      }
  };
  if (!windows.cu_seqlens.defined()) {
    append(0, window_count(windows, tokens));
    return index;
  }
  const at::Tensor bounds = window_cu_seqlens(windows);
  for (int64_t n = 0; n + 1 < bounds.numel(); ++n)
    append(windows.cu_seqlens.const_data_ptr<int32_t>()[n],
           bounds.const_data_ptr<int32_t>()[n + 1] - bounds.const_data_ptr<int32_t>()[n]);
  return index;
}

// Positions are added as the float32 that they are: their gradient is a sum over all windows.
at::Tensor sum_of(const at::Tensor& x, const at::Tensor& positions) {
  return (x + positions).to(x.scalar_type());
}

// [B, T, HK, D] -> [B, M, HK, l, D], positions added.
at::Tensor gather_windows(const at::Tensor& x, const NsaCompression& phi, const NsaOptions& options,
                          const PoolWindows& windows) {
  const at::Tensor index = window_tokens(options, windows, x.size(1)).to(x.device());
  const at::Tensor zero = at::zeros({x.size(0), 1, x.size(2), x.size(3)}, x.options());
  at::Tensor gathered = at::cat({x, zero}, 1)
                            .index_select(1, index)
                            .view({x.size(0), index.numel() / options.compress_block, options.compress_block,
                                   x.size(2), x.size(3)})
                            .transpose(2, 3);
  return phi.positions.defined() ? sum_of(gathered, phi.positions) : gathered;
}

// windows [B, M, HK, l, D], weight [HK, l D, D'] -> [B, M, HK, D'].
at::Tensor by_head(const at::Tensor& windows, const at::Tensor& weight) {
  const int64_t batch = windows.size(0), count = windows.size(1), heads = windows.size(2);
  const at::Tensor rows =
      windows.permute({2, 0, 1, 3, 4}).reshape({heads, batch * count, windows.size(3) * windows.size(4)});
  return rows.matmul(weight.to(rows.scalar_type()))
      .view({heads, batch, count, weight.size(2)})
      .permute({1, 2, 0, 3});
}

at::Tensor mean(const at::Tensor& x, const NsaCompression& phi, const PoolWindows& windows) {
  const bool exact = x.scalar_type() == at::kDouble;
  const at::Tensor pooled = (exact ? pool_blocks_reference : pool_blocks)(x, {Pool::mean}, windows);
  return phi.positions.defined() ? sum_of(pooled, phi.positions.mean(1)) : pooled;
}

}  // namespace

at::Tensor nsa_compress(const at::Tensor& x, const NsaCompression& phi, const NsaOptions& options,
                        const at::Tensor& cu_seqlens) {
  expect_shape(x, "x", {-1, -1, -1, -1});
  if (cu_seqlens.defined()) expect_cu_seqlens(cu_seqlens, "cu_seqlens", x.size(1));
  const int64_t heads = x.size(2), size = x.size(3), block = options.compress_block;
  if (phi.positions.defined()) expect_shape(phi.positions, "positions", {heads, block, size});
  const PoolWindows windows = nsa_windows(options, cu_seqlens);
  if (phi.kind == "mean" && options.form == NsaForm::paper) return mean(x, phi, windows);
  check<ConfigError>(!options.partial_windows, "partial_windows: true, expected false with compress = \"",
                     phi.kind, "\"");
  const at::Tensor gathered = gather_windows(x, phi, options, windows);
  if (phi.kind == "mean") return gathered.mean(3);
  if (phi.kind == "weighted") {
    expect_shape(phi.weight, "weight", {heads, block});
    return (gathered * phi.weight.to(x.scalar_type()).unsqueeze(-1)).sum(3);
  }
  if (phi.kind == "linear") {
    expect_shape(phi.weight, "weight", {heads, block * size, size});
    return by_head(gathered, phi.weight);
  }
  check<ConfigError>(phi.kind == "mlp", "compress: \"", phi.kind,
                     "\", expected one of mean, weighted, linear, mlp");
  expect_shape(phi.weight, "weight", {-1, block * size});
  expect_shape(phi.down_weight, "down_weight", {size, phi.weight.size(0)});
  const at::Tensor hidden = at::relu(linear_map(gathered.flatten(3), phi.weight, phi.bias));
  return linear_map(hidden, phi.down_weight, phi.down_bias);
}

}  // namespace longreach
