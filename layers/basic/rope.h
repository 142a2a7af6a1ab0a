// Rotary position embedding in Hugging Face's Llama convention (feature i turns with feature i + D/2), and
// the scalings of its rope_scaling: linear, dynamic (NTK), yarn, llama3, longrope.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "layers/basic/layer_site.h"

namespace longreach {

struct Rotation {
  at::Tensor cos, sin;  // [B, T, D/2]
};

// Angles come from integer positions in float64; cos and sin are then rounded once. A table grows with the
// largest position seen; it belongs to this object, which the layers of one model share and one thread uses
// at a time. The last answer is kept: the layers of one pass ask for the same positions, so that cos and sin
// are gathered, and positions brought to the device, once a pass.
class RotaryEmbedding {
 public:
  // head_dim must be even (dynamic and yarn: > 2). max_position_embeddings: where
  // original_max_position_embeddings is 0. Throws ConfigError naming the key.
  RotaryEmbedding(const RopeConfig& config, int64_t head_dim, int64_t max_position_embeddings);

  // positions int64 [B, T] -> float32 (float64 when dtype is float64), on `device`, default that of
  // positions. Positions on the CPU are best: those on a device are read back. length: tokens of the
  // sequence, on which `dynamic` and `longrope` depend; 0: each document's own, its largest position + 1,
  // where a document goes on as long as positions rise in a row.
  Rotation at(const at::Tensor& positions, at::ScalarType dtype, int64_t length = 0,
              std::optional<at::Device> device = std::nullopt);

  // Throws ConfigError naming the key when `tokens` cannot follow `seen` ones whose rotated keys are kept:
  // under `dynamic`, beyond the original length; under `longrope`, across it.
  void expect_steady_angles(int64_t seen, int64_t tokens) const;

  // Whether a token's angles depend on the length of its document.
  bool depends_on_length() const { return config_.rope_type == "dynamic" || config_.rope_type == "longrope"; }
  // The shortest length at which angles are those of a sequence of `length` tokens; 0 where all have the
  // same.
  int64_t length_with_these_angles(int64_t length) const;

  // Radians a position of each feature pair [D/2], for a sequence of `length` tokens.
  std::vector<double> inverse_frequencies(int64_t length) const;
  // What yarn and longrope multiply cos and sin by; 1 otherwise.
  double attention_factor() const;

 private:
  void build_table(int64_t rows, at::ScalarType dtype, int64_t length, at::Device device);

  RopeConfig config_;
  int64_t head_dim_, original_length_;
  at::Tensor cos_, sin_;       // [P, D/2]
  int64_t table_length_ = -1;  // length_with_these_angles that the table was made for
  struct {
    at::Tensor positions;
    Rotation rotation;
    int64_t length = 0;
  } last_;
};

// x [B, T, H, D] -> the same shape and dtype, rotated; products in float32 (float64 for float64).
// Differentiable in x.
at::Tensor rotate(const at::Tensor& x, const Rotation& rotation);

}  // namespace longreach
