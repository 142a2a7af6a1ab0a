// S2-Attention: each head reads a window of key blocks and its own vertical strides. See README.md.
#pragma once
#include <ATen/core/Tensor.h>

#include <array>
#include <memory>
#include <string>
#include <string_view>

#include "core/fields.h"
#include "layers/basic/layer_site.h"

namespace longreach::verify {
class Case;
}

namespace longreach {

class Attention;

struct S2Config {
  static constexpr std::string_view kind = "s2";
  static constexpr std::string_view family = "block-sparse";
  static constexpr std::string_view summary = "a window of blocks and strides that differ by head";
  static constexpr std::string_view source =
      "S2-Attention, arXiv 2407.17678; the authors' code: github.com/linxihui/dkernel";
  static constexpr std::array<std::string_view, 1> vectors{"s2_attention"};
  int64_t block_size = 64;
  int64_t local_blocks = 16;
  int64_t vert_stride = 8;
  int64_t head_sliding_offset = 0;
  int64_t head_sliding_step = 0;
  int64_t num_dense_heads = 0;
  bool homo_head = false;
  std::string pattern_per = "kv_head";
  bool rope = true;
  void fields(FieldVisitor& visit);
  int64_t grain() const { return block_size; }
  // Throws ConfigError for a pattern that the layer's heads do not make.
  void validate(const LayerSite& site) const;
  // Cases of vector files that name one of `vectors`.
  static void verify(verify::Case& run);
};

// Which key blocks a query block reads; blocks count from the start of the document, `head` is a kv head, or
// a query head where patterns are per query head.
struct S2Pattern {
  int64_t block_size = 64;
  int64_t local_blocks = 16;  // the latest blocks, the query's own included
  int64_t local_after = 1;    // the same to the right; read when not causal
  int64_t vert_stride = 8;
  int64_t head_sliding_offset = 0, head_sliding_step = 1;
  int64_t heads = 1;            // patterns; one for all heads when homogeneous
  int64_t num_dense_heads = 0;  // the last of them see every block
  // Causal: a head's strides are blocks of the document, so that a key that is let go never comes back. Else
  // they count from the borders of the query's window, the same for every head.
  bool causal = true;

  // Throws ConfigError for sizes that make no pattern.
  void check() const;
  bool keeps(int64_t head, int64_t row, int64_t block) const;
};

// The pattern of a layer; step 0 becomes max(1, vert_stride / num_heads), as in the authors' code.
S2Pattern s2_pattern(const S2Config& config, int64_t num_heads, int64_t num_kv_heads);

// bool [heads, blocks - past, blocks]: the rows after `past` blocks.
at::Tensor s2_block_mask(const S2Pattern& pattern, int64_t blocks, int64_t past = 0);

// Lists for block_attention, int32 [1, heads, N, S], of rows of `query_block` queries of each document
// (bounds as in Batch), or of the sequence of `tokens` from token `first` on. A row must lie in one block:
// query_block divides block_size and, but for single queries, first is a multiple of it.
at::Tensor s2_lists(const S2Pattern& pattern, int64_t tokens, int64_t first, int64_t query_block,
                    const at::Tensor& cu_seqlens = {});

// The plain formula. q [B, T, H, D], k and v [B, T, HK, D] of any floating dtype -> [B, T, H, D]; memory T x
// T.
at::Tensor s2_attention_reference(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                  const S2Pattern& pattern, const at::Tensor& cu_seqlens = {});

std::shared_ptr<Attention> make_attention(const S2Config& config, const LayerSite& site);

}  // namespace longreach
