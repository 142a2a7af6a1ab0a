// Dense fp32 copies of key and value heads. Rows of one head lie heads x size apart in the usual layout; read
// in place they fall into few sets of the caches, and bf16 rows would be converted once for every query tile.
#pragma once
#include <cstdint>

#include "layers/ops/cpu/scratch.h"
#include "layers/ops/cpu/softmax_inputs.h"
#include "layers/ops/dtype.h"

namespace longreach::softmax_tile {

// The keys and values of one head as the tile products read them; row 0 is key 0.
struct KeyValueRows {
  const void *k, *v;
  int64_t k_row, v_row;
  DType k_dtype, v_dtype;
};

// One input, k or v: its own memory, or copies in slots that the caller deals out.
class PackedHeads {
 public:
  // reuse: how often each key tile is going to be read; copies pay from a few times on.
  PackedHeads(const Strided& input, int64_t keys, int64_t size, DType dtype, Bf16Product product,
              int64_t reuse);

  void open(int64_t slots);
  void fill(int64_t batch, int64_t head, int64_t slot) { fill_rows(batch, head, slot, 0, keys_); }
  void fill_rows(int64_t batch, int64_t head, int64_t slot, int64_t first, int64_t last);
  const void* rows(int64_t batch, int64_t head, int64_t slot) const;
  int64_t stride() const { return packed_ ? size_ : input_.token; }
  bool packed() const { return packed_; }
  DType dtype() const { return packed_ ? DType::kFloat32 : dtype_; }

 private:
  Strided input_;
  int64_t size_, keys_;
  DType dtype_;
  bool packed_;
  simd::Scratch<float> space_;
};

}  // namespace longreach::softmax_tile
