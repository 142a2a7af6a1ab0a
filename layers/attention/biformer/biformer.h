// Bi-level routing attention: queries of a region read the keys of the regions that suit them best. A causal
// form for language models, and the authors' layer over images. See README.md.
#pragma once
#include <ATen/core/Tensor.h>

#include <array>
#include <memory>
#include <optional>
#include <string_view>

#include "core/fields.h"
#include "layers/basic/layer_site.h"

namespace longreach::verify {
class Case;
}

namespace longreach {

class Attention;

struct BiformerConfig {
  static constexpr std::string_view kind = "biformer";
  static constexpr std::string_view family = "block-sparse";
  static constexpr std::string_view summary = "regions of queries choose regions of keys";
  static constexpr std::string_view source =
      "BiFormer, arXiv 2303.08810; the authors' code: github.com/rayleizhu/BiFormer; the causal form is this "
      "project's";
  static constexpr std::array<std::string_view, 1> vectors{"biformer_bra"};
  static constexpr bool chooses_from_scores = true;
  int64_t region = 64;
  int64_t topk = 16;
  bool rope = true;
  int64_t grain() const { return region; }
  void fields(FieldVisitor& visit);
  // Cases of vector files that name one of `vectors`.
  static void verify(verify::Case& run);
};

struct BiformerRouting {
  int64_t region = 64, topk = 16;
  // Regions up to the query's own, which is always among the topk; else any topk regions.
  bool causal = true;
  // The query that stands for its region: the mean of all, as in the paper, or the first, which no later
  // query reaches. With the mean, a causal mask inside regions still lets later queries choose for earlier
  // ones.
  enum class Query { mean, first } query = Query::first;
};

struct BiformerOutput {
  at::Tensor o;        // [B, T, H, D]
  at::Tensor lse;      // [B, H, T]
  at::Tensor indices;  // int32 [B, HK, N, topk]: the regions of each region's queries, as in BlockLists
};

// q [B, T, H, D], k and v [B, T, HK, D]; a list for each kv head: regions score by the sum over the group's
// heads of q_r . mean(k of the region); routing has no gradient. region: 16, 32, 64 or 128.
BiformerOutput biformer_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                  const BiformerRouting& routing, const at::Tensor& cu_seqlens,
                                  std::optional<double> scale, Implementation implementation);

// The same from its formula, any floating dtype, the whole score matrix in memory.
BiformerOutput biformer_attention_reference(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                            const BiformerRouting& routing, const at::Tensor& cu_seqlens,
                                            std::optional<double> scale);

// The lists alone for queries from token `first` on, a multiple of the region (0 when packed). q [B, T -
// first, H, D]; means [B, M, HK, D] of the whole regions of each document's keys (all regions, the last one
// short too, when not causal).
at::Tensor biformer_regions(const at::Tensor& q, const at::Tensor& means, int64_t tokens, int64_t first,
                            const BiformerRouting& routing, const at::Tensor& cu_seqlens,
                            Implementation implementation);

// The means that biformer_regions takes, of keys [B, T, HK, D].
at::Tensor biformer_key_means(const at::Tensor& k, const BiformerRouting& routing,
                              const at::Tensor& cu_seqlens, Implementation implementation);

// The layer of the vision model, under the authors' names of its parameters.
struct BiformerImageWeights {
  at::Tensor qkv, qkv_bias;    // qkv.qkv: [3 C, C], [3 C]
  at::Tensor lepe, lepe_bias;  // depthwise convolution of the values: [C, 1, s, s], [C]
  at::Tensor wo, wo_bias;      // [C, C], [C]
};

struct BiformerImageOptions {
  int64_t num_heads = 8, n_win = 7, topk = 4;
  // Keys and values weighted by the softmax of the routing scores, which learn then
  bool soft_routing = false;
  // Of routing and attention; default C^-1/2: of the whole width, as the authors'.
  std::optional<double> scale;
  at::Tensor regions;  // int64 [B, n_win^2, topk]: read these; undefined: those of the largest scores
  Implementation implementation = Implementation::fused;
};

struct BiformerImageOutput {
  at::Tensor y;        // [B, H, W, C]
  at::Tensor regions;  // int64 [B, n_win^2, topk]: the best first, regions in row-major order
  at::Tensor weights;  // [B, n_win^2, topk]: the softmax over the scores of these regions
  at::Tensor scores;   // [B, n_win^2, n_win^2], at least float32: of all regions
};

// x [B, H, W, C]; n_win divides H and W. One graph of regions for all heads. Fused: the keys and values of
// the chosen regions are gathered (topk times k and v), as the authors do; no map of pixels x pixels. Equal
// scores go to whichever region at::topk names first, as in the authors' code. Throws ShapeError,
// ConfigError.
BiformerImageOutput biformer_image(const at::Tensor& x, const BiformerImageWeights& weights,
                                   const BiformerImageOptions& options);

std::shared_ptr<Attention> make_attention(const BiformerConfig& config, const LayerSite& site);

}  // namespace longreach
