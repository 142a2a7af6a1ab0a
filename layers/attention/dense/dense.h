// Dense causal softmax attention: every query sees every earlier key of its document. See README.md.
#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "core/fields.h"
#include "layers/attention/requirement.h"
#include "layers/basic/layer_site.h"

namespace longreach {

class Attention;

struct DenseConfig {
  static constexpr std::string_view kind = "dense";
  static constexpr std::string_view family = "softmax";
  static constexpr std::string_view summary = "causal softmax attention, grouped queries";
  static constexpr std::string_view source = "Vaswani et al., arXiv 1706.03762; kernel: arXiv 2307.08691";
  bool rope = true;
  bool output_gate = false;
  std::string backend = "auto";
  void fields(FieldVisitor& visit) {
    visit.field("rope", rope,
                {.help = "rotary embedding on q and k; false: no positions (NoPE, arXiv 2305.19466)"});
    visit.field("output_gate", output_gate,
                {.help = "outputs of the heads times sigmoid of a projection of x, o_gate (MiniCPM-SALA)"});
    visit.field("backend", backend,
                {.help = "kernels on CUDA: longreach, cudnn (LibTorch's SDPA), or auto: cudnn where it takes "
                         "the case and "
                         "training.deterministic is off, else longreach. The CPU has longreach alone",
                 .allowed = one_of({"auto", "longreach", "cudnn"})});
  }
  std::optional<Requirement> requirement() const;
  void take_any_run() { backend = "auto"; }
};

// The plain formula: softmax over the earlier keys of each document. q [B, T, H, D], k and v [B, T, HK, D] of
// any floating dtype, cu_seqlens as in Batch -> [B, T, H, D]. Memory T x T.
at::Tensor dense_attention_reference(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                     const at::Tensor& cu_seqlens = {});

std::shared_ptr<Attention> make_attention(const DenseConfig& config, const LayerSite& site);

}  // namespace longreach
