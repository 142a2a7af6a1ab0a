// A cache of all keys and values that grows in steps, so that a short answer under a large max_tokens stays
// small. What dense decoding and the block-sparse mechanisms carry.
#pragma once
#include <ATen/core/Tensor.h>

#include "layers/attention/attention.h"

namespace longreach {

struct KvCache : DecodeState {
  KvCache(int64_t batch_size, int64_t max_tokens) : batch(batch_size), limit(max_tokens) {}
  int64_t bytes() const override;
  int64_t tokens() const override { return used; }

  // k, v [B, n, HK, D] behind what is there.
  void append(const at::Tensor& k, const at::Tensor& v);
  at::Tensor filled_keys() const { return keys.narrow(1, 0, used); }
  at::Tensor filled_values() const { return values.narrow(1, 0, used); }

  at::Tensor keys, values;  // [B, capacity, HK, D], the first `used` filled
  int64_t batch, limit, used = 0;
};

// Rows that come a few at a time, [B, n, ...] behind what is there, with room that doubles.
struct GrowingRows {
  int64_t bytes() const { return rows.defined() ? static_cast<int64_t>(rows.nbytes()) : 0; }
  void append(const at::Tensor& x);
  at::Tensor filled() const { return rows.narrow(1, 0, used); }

  at::Tensor rows;  // [B, capacity, ...], the first `used` filled; undefined before the first append
  int64_t used = 0;
};

// `cache` [B, capacity, ...] with room for `capacity` rows like those of `like`, the first `used` kept.
at::Tensor enlarged_cache(const at::Tensor& cache, const at::Tensor& like, int64_t used, int64_t capacity);

}  // namespace longreach
