// Native sparse attention: compressed keys, selected blocks of keys and a window, each weighted by a gate.
// See README.md.
#pragma once
#include <ATen/core/Tensor.h>

#include <array>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/fields.h"
#include "layers/basic/layer_site.h"
#include "layers/ops/selection/selection.h"

namespace longreach::verify {
class Case;
}

namespace longreach {

class Attention;
struct Batch;

struct NsaConfig {
  static constexpr std::string_view kind = "nsa";
  static constexpr std::string_view family = "block-sparse";
  static constexpr std::string_view summary = "compressed keys, selected blocks, a window, gates";
  static constexpr std::string_view source =
      "Yuan et al., arXiv 2502.11089; flash-linear-attention, XunhaoLai's and lucidrains' codes";
  static constexpr std::array<std::string_view, 1> vectors{"nsa"};
  static constexpr bool chooses_from_scores = true;
  static constexpr bool rope = true;  // q and k are always rotated
  std::string layout = "fla";
  std::string compress = "mean";
  int64_t compress_block = 64, compress_stride = 64;
  int64_t block_size = 64;
  int64_t num_blocks = 16, first_blocks = 1, latest_blocks = 2;
  int64_t window = 512;
  std::string compress_rope = "auto";
  int64_t memory_slots = 1;
  int64_t grain() const;
  void fields(FieldVisitor& visit);
  // Cases of vector files that name one of `vectors`.
  static void verify(verify::Case& run);
};

// The conventions of compression, selection and visibility.
enum class NsaForm {
  // Window i of compression covers tokens [i d, i d + l), is seen by queries from its last token on, and
  // votes for blocks by its probability times its overlap with them. Forced blocks count towards num_blocks.
  paper,
  // lucidrains: window i covers [(i + 1) d - l, (i + 1) d), zeros before the first token, and is seen by
  // queries after it; memory slots are always seen. A block's score is the mean logit of its windows and
  // heads, its value the softmax of that beside a slot of -1000; blocks before the query's own are chosen
  // where it exceeds 1e-10, and the own block comes on top of num_blocks.
  lucidrains,
};

struct NsaOptions {
  NsaForm form = NsaForm::paper;
  int64_t compress_block = 64, compress_stride = 64;  // l and d <= l, tokens
  // A document's last window is cut at its end instead of left out (l = d); no query sees it.
  bool partial_windows = false;
  int64_t block_size = 64;  // l', tokens; 16, 32, 64 and 128 take block_attention, others are slower
  int64_t num_blocks = 16;  // n
  int64_t first_blocks = 1, latest_blocks = 2;      // forced; the latest begin with the query's own
  int64_t window = 512;                             // keys of the window, the query's own included
  BlockScores::Vote vote = BlockScores::Vote::sum;  // of the heads of a group; sum and mean choose the same
  bool shared_selection = true;                     // one list for the heads of a group, or one for each head
  std::optional<double> scale;                      // of logits; default D^-1/2
};

// phi: what turns the l tokens of a window into one. Undefined tensors are not used.
struct NsaCompression {
  std::string kind = "mean";          // mean | weighted | linear | mlp
  at::Tensor weight;                  // weighted [HK, l]; linear [HK, l D, D]; mlp: first layer [F, l D]
  at::Tensor bias;                    // mlp [F]
  at::Tensor down_weight, down_bias;  // mlp, after ReLU: [D, F], [D]
  at::Tensor positions;               // [HK, l, D], added to the window's tokens
};

// x [B, T, HK, D] -> [B, M, HK, D]; cu_seqlens as in Batch: windows of documents one after the other. M:
// nsa_window_cu_seqlens, or its one document.
at::Tensor nsa_compress(const at::Tensor& x, const NsaCompression& phi, const NsaOptions& options,
                        const at::Tensor& cu_seqlens = {});

// The windows of each document: PoolWindows of the form (window_count, window_cu_seqlens).
PoolWindows nsa_windows(const NsaOptions& options, const at::Tensor& cu_seqlens = {});

struct NsaInput {
  at::Tensor q, k, v;  // [B, Tq, H, D], [B, Tk, HK, D], [B, Tk, HK, Dv]: positions applied; queries are the
                       // last of the keys (decoding), all of them when packed
  at::Tensor gate;     // [B, Tq, H or 1, 3]: compressed, selected, window; undefined: 1
  at::Tensor q_cmp;    // [B, Tq, H, D] against the compressed keys; undefined: q
  at::Tensor k_cmp, v_cmp;        // [B, M, HK, D], [B, M, HK, Dv]: windows of all Tk tokens
  at::Tensor memory_k, memory_v;  // [HK, slots, D], [HK, slots, Dv], seen by every query of the compressed
                                  // branch; undefined: none
  at::Tensor cu_seqlens;          // as in Batch
};

struct NsaOutput {
  at::Tensor o;                    // [B, Tq, H, Dv]: the gated sum
  at::Tensor o_cmp, o_slc, o_win;  // before gating; o_cmp is 0 where nothing is visible
  at::Tensor lse_cmp;              // [B, H, Tq] float32 (float64 of float64), -inf where nothing is visible
  // int32 [B, Hl, Tq, S], ascending (lucidrains: own block last), -1 pads; Hl = HK or H.
  at::Tensor block_indices;
  // If asked for: [B, Hl, Tq, blocks of the longest document], -inf (lucidrains: 0) where no candidate. The
  // fused form of lucidrains gives the chosen alone.
  at::Tensor block_scores;
};

// Three branches and their gated sum. Differentiable in q, k, v, the compressed tensors, the memory and the
// gate; the choice of blocks has no gradient, so that phi learns through the compressed branch alone. Fused:
// float32, bfloat16; scores exist in tiles. The reference: any floating dtype, T x T in memory.
NsaOutput nsa_attention(const NsaInput& in, const NsaOptions& options, bool keep_scores = false);
NsaOutput nsa_attention_reference(const NsaInput& in, const NsaOptions& options, bool keep_scores = false);

// flash-linear-attention's form: windows of block_size tokens are the means of k and v, their positions
// applied.
NsaOutput nsa_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& gate,
                        const NsaOptions& options, const at::Tensor& cu_seqlens = {});

// Names of a layer's parameters, ours and those of the layout's authors, in files of theirs. A name of theirs
// that ends in a row range, such as `to_qkv.weight[64:96]`, is those rows of a tensor that ours share.
std::vector<std::pair<std::string, std::string>> nsa_checkpoint_names(const NsaConfig& config,
                                                                      const LayerSite& site);

// What a layer does with x [B, T, C], for plots and ablations: y and the lists of blocks it chose. branches:
// factors of the compressed, the selected and the window branch; 0 cuts one off.
struct NsaProbe {
  at::Tensor y, block_indices;
};
// Throws ConfigError when `layer` is no native sparse attention.
NsaProbe nsa_probe(Attention& layer, const at::Tensor& x, const Batch& batch,
                   const std::array<double, 3>& branches = {1.0, 1.0, 1.0});

std::shared_ptr<Attention> make_attention(const NsaConfig& config, const LayerSite& site);

}  // namespace longreach
