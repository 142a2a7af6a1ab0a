// The module of native sparse attention, shared by nsa.cpp (forward), context.cpp and decode.cpp; not a
// public header.
#pragma once
#include "distributed/sequence_layout.h"
#include "layers/attention/common/softmax_attention.h"
#include "layers/attention/nsa/nsa.h"
#include "layers/attention/planned_traffic.h"

namespace longreach {
class HeadShare;
}

namespace longreach::nsa {

inline constexpr std::array<double, 3> kAllBranches{1.0, 1.0, 1.0};

class NsaAttention : public SoftmaxAttention, public TrafficPlanner {
 public:
  NsaAttention(const NsaConfig& config, const LayerSite& site);

  AttentionOutput forward(const at::Tensor& x, const Batch& batch) override;
  std::unique_ptr<DecodeState> start_decoding(int64_t batch_size, int64_t max_tokens) const override;
  at::Tensor decode(const at::Tensor& x, DecodeState& state) override;
  double flops_per_token(int64_t seq_len) const override;
  PlannedTraffic planned_traffic(const std::shared_ptr<const ContextGroup>& context,
                                 at::ScalarType dtype) const override;

  NsaProbe probe(const at::Tensor& x, const Batch& batch, const std::array<double, 3>& branches) const;

 private:
  // What a piece of tokens gives: heads before and after the rotary embedding.
  struct Tokens {
    Heads plain, turned;
  };

  void register_phi(const NsaConfig& config);
  Tokens tokens(const at::Tensor& x, const at::Tensor& positions, int64_t length) const;
  at::Tensor turn(const at::Tensor& x, const at::Tensor& positions, int64_t length) const;
  at::Tensor turn(const at::Tensor& x, const Rotation& rotation) const;
  at::Tensor gate(const at::Tensor& x) const;  // [B, T, H or 1, 3]
  NsaCompression key_phi() const;
  NsaCompression value_phi() const;
  // Compressed keys [B, M, HK, D] get the positions of their windows, int64 [1, M], where the form says so.
  at::Tensor place(const at::Tensor& k_cmp, const at::Tensor& positions, int64_t length) const;
  void set_memory(NsaInput& in) const;
  // One sequence over several ranks, context.cpp.
  at::Tensor forward_context(const at::Tensor& x, const Batch& batch) const;
  at::Tensor own_windows(const at::Tensor& k, const at::Tensor& v, const HeadShare& share) const;
  at::Tensor placed_windows(const at::Tensor& k_cmp, const ContextGroup& context) const;
  bool reads_plain_queries() const { return options_.form == NsaForm::lucidrains; }
  struct OwnHeads {
    Tokens of;
    at::Tensor gate;
  };
  OwnHeads own_heads(const HeadShare& share, const Tokens& all, const at::Tensor& gate) const;
  NsaInput of_piece(const Piece& piece, const Heads& turned, const at::Tensor& plain_q,
                    const at::Tensor& windows, const HeadShare& share) const;
  // The rest of the layer: attention, gates, output projection.
  NsaProbe finish(const at::Tensor& x, NsaInput in, const std::array<double, 3>& branches) const;

  NsaConfig config_;
  NsaOptions options_;
  bool compress_turned_ = false;  // phi reads keys after the rotary embedding
  std::shared_ptr<Linear> gate_;
  at::Tensor compress_key_, compress_value_;                // weighted, linear
  std::shared_ptr<torch::nn::Module> mlp_key_, mlp_value_;  // mlp
  at::Tensor key_positions_, value_positions_, memory_;
};

}  // namespace longreach::nsa
