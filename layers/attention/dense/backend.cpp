// Which kernels compute dense attention on CUDA. The choice looks at shapes, types and the process' wish for
// determinism, never at gradients: a layer that is recomputed in the backward pass must compute what it
// computed before.
#include "core/error.h"
#include "layers/attention/dense/module.h"
#include "layers/ops/cudnn_attention/cudnn_attention.h"

namespace longreach {

// What cuDNN's kernels take, of what a run decides.
std::optional<Requirement> DenseConfig::requirement() const {
  if (backend != "cudnn") return std::nullopt;
  return Requirement{.option = "backend = \"cudnn\"",
                     .needs = {Need::cuda, Need::bfloat16, Need::whole_rows, Need::any_order},
                     .way_out = "\"auto\" and \"longreach\" take any run"};
}

namespace dense {

bool takes_cudnn(const std::string& backend, const Heads& heads, const at::Tensor& cu_seqlens) {
  if (backend == "longreach") return false;
  std::string why;
  if (!heads.q.is_cuda())
    why = text("tensors are on ", heads.q.device().str(), "; it computes on CUDA");
  else if (cu_seqlens.defined())
    why = "packed documents; it takes whole rows (training.varlen = false)";
  else
    why = cudnn_refusal(heads.q, heads.k, heads.v, /*causal=*/true, /*gradients=*/true);
  check<ConfigError>(backend == "auto" || why.empty(), "backend = \"cudnn\": ", why,
                     "; \"auto\" and \"longreach\" take any case");
  return why.empty();
}

}  // namespace dense
}  // namespace longreach
