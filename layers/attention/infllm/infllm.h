// InfLLM-V2: blocks of keys that means of keys say matter, the first ones and the latest. No parameters, so
// that any dense checkpoint can read its keys this way. See README.md.
#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/fields.h"
#include "layers/attention/limitation.h"
#include "layers/basic/layer_site.h"

namespace longreach {

class Attention;

struct InfllmConfig {
  static constexpr std::string_view kind = "infllm";
  static constexpr std::string_view family = "block-sparse";
  static constexpr std::string_view summary = "blocks chosen by means of keys, without parameters";
  static constexpr std::string_view source = "InfLLM-V2, arXiv 2509.24663; MiniCPM-SALA, arXiv 2602.11761";
  static constexpr bool chooses_from_scores = true;
  int64_t kernel_size = 32, kernel_stride = 16;
  int64_t block_size = 64;
  int64_t num_blocks = 64, first_blocks = 1;
  int64_t window = 2048;
  int64_t dense_len = 0;
  bool rope = true;
  bool output_gate = false;
  int64_t grain() const { return block_size; }
  void fields(FieldVisitor& visit);
  // Options that do not fit each other: the key, and what was found and expected.
  std::optional<std::pair<std::string, std::string>> contradiction() const;
  void validate(const LayerSite& site) const;
  std::vector<Limitation> limitations() const;

  // The query's own block and those of the window before it.
  int64_t latest_blocks() const { return window / block_size + 1; }
  // Blocks that a query reads when there are as many: num_blocks and the window's, first and own included.
  int64_t kept_blocks() const { return num_blocks + window / block_size; }

  bool operator==(const InfllmConfig&) const = default;
};

// The plain formula, its choice in float64. q [B, T, H, D], k and v [B, T, HK, D] of any floating dtype,
// cu_seqlens as in Batch -> [B, T, H, D]. Memory T x T.
at::Tensor infllm_attention_reference(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                      const InfllmConfig& config, const at::Tensor& cu_seqlens = {});

// Means of the complete strides of each document: k [B, T, HK, D] -> [B, M, HK, D] in float32 (float64 of
// float64), document by document. No gradient.
at::Tensor infllm_stride_means(const at::Tensor& k, const InfllmConfig& config,
                               const at::Tensor& cu_seqlens = {});

// The blocks that queries read: q [B, n, H, D] are the last of a sequence of `tokens` keys, `means` [B, M,
// HK, D] those of its strides (more are not read) -> int32 [B, HK, n, kept_blocks], as
// BlockLists::indices. Scores exist for a tile of queries at a time. No gradient. Throws DataError when a
// score is NaN.
at::Tensor infllm_choose(const at::Tensor& q, const at::Tensor& means, const InfllmConfig& config,
                         int64_t tokens);

std::shared_ptr<Attention> make_attention(const InfllmConfig& config, const LayerSite& site);

}  // namespace longreach
