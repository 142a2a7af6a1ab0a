#include "train/model_input.h"

#include <ATen/ops/from_blob.h>

#include <algorithm>

namespace longreach {
namespace {

template <class T>
at::Tensor copy_of(const std::vector<T>& values, at::IntArrayRef shape, at::ScalarType dtype) {
  return at::from_blob(const_cast<T*>(values.data()), shape, at::TensorOptions().dtype(dtype)).clone();
}

}  // namespace

ModelInput to_model_input(const data::TokenBatch& batch) {
  const auto documents = static_cast<int64_t>(batch.cu_seqlens.size()) - 1;
  const bool packed = documents != batch.rows;  // every row begins a document, so equal counts mean one each
  const std::vector<int64_t> shape = packed ? std::vector<int64_t>{1, batch.rows * batch.seq_len}
                                            : std::vector<int64_t>{batch.rows, batch.seq_len};
  ModelInput input;
  input.tokens = copy_of(batch.tokens, shape, at::kLong);
  input.labels = copy_of(batch.labels, shape, at::kLong);
  input.batch.positions = copy_of(batch.positions, shape, at::kLong);
  if (packed) input.batch.cu_seqlens = copy_of(batch.cu_seqlens, {documents + 1}, at::kInt);
  input.labelled = static_cast<int64_t>(batch.labels.size()) -
                   std::count(batch.labels.begin(), batch.labels.end(), data::kIgnoreLabel);
  return input;
}

}  // namespace longreach
