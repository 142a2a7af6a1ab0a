// What the kernel of decode_attention takes: plain pointers and strides, no torch.
#pragma once
#include <cstdint>
#include <vector>

#include "layers/ops/dtype.h"
#include "layers/ops/strided.h"

namespace longreach::decoding {

// The keys that a query sees: [0, sinks), and `count` - sinks from `latest` on.
struct Seen {
  int64_t sinks = 0, latest = 0, count = 0;
};

// Query head h reads key head h * key_heads / heads, and the value head likewise.
struct Params {
  DType dtype = DType::kFloat32;
  int64_t batches = 0, queries = 0, heads = 0, key_heads = 0, value_heads = 0, qk_size = 0, v_size = 0;
  float scale = 0;
  Strided q, k, v, o;
  std::vector<Seen> seen;  // by each query
};

void forward(const Params& params);

}  // namespace longreach::decoding
