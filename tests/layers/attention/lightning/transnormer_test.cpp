// nanoTransNormer's whole language model, with the authors' own numbers.
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "checkpoints/safetensors.h"
#include "layers/basic/loss.h"
#include "models/transformer.h"
#include "tests/support/random_tensors.h"
#include "tests/support/vectors.h"

namespace longreach {
namespace {

using namespace test;

// nanoTransNormer's whole language model: three layers, SGLU, SRMSNorm, LRPE from the second layer on, tied
// embeddings.
std::string our_name(std::string name) {
  const std::vector<std::pair<std::string, std::string>> changes{{"transnormer.wte", "model.embed_tokens"},
                                                                 {"transnormer.h", "model.layers"},
                                                                 {"token_mixer", "self_attn"},
                                                                 {"channel_mixer.l1", "mlp.gate_proj"},
                                                                 {"channel_mixer.l2", "mlp.up_proj"},
                                                                 {"channel_mixer.l3", "mlp.down_proj"}};
  for (const auto& [theirs, ours] : changes)
    if (const size_t at = name.find(theirs); at != std::string::npos) name.replace(at, theirs.size(), ours);
  return name;
}

void transnormer(Implementation implementation, at::ScalarType dtype, double tolerance) {
  const SafetensorsFile file(vector_path("lightning/tnl_lm"));
  ModelConfig config;
  config.vocab_size = 48;
  config.hidden_size = 32;
  config.intermediate_size = 64;
  config.num_hidden_layers = 3;
  config.rms_norm_eps = 1e-6;
  config.mlp = "sglu";
  config.norm = "srmsnorm";
  config.attention = {{.layers = "all", .config = LightningConfig{}}};
  config.implementation = implementation;
  config.resolve(48);
  Transformer model(config, 1);
  model.to(dtype);
  auto parameters = model.named_parameters();
  {
    const at::NoGradGuard no_grad;
    for (const auto& [name, entry] : file.entries())
      if (name.starts_with("param.")) parameters[our_name(name.substr(6))].copy_(file.tensor(name));
  }
  const at::Tensor tokens = file.tensor("in.idx"), targets = file.tensor("in.targets");
  const at::Tensor labels = targets.masked_fill(targets.eq(-1), kIgnoredLabel);
  const Batch batch = whole_rows(2, 37);
  const at::Tensor logits = model.logits(tokens, batch);
  EXPECT_LE(relative_error(logits, file.tensor("out.logits")), tolerance);
  const LossOutput out = model.loss(tokens, labels, batch);
  const at::Tensor loss = out.loss_sum / static_cast<double>(out.tokens);
  EXPECT_LE(relative_error(loss, file.tensor("out.loss")[0]), tolerance);
  ((logits * file.tensor("gout.logits").to(dtype)).sum() + loss * file.tensor("gout.loss")[0].to(dtype))
      .backward();
  for (const auto& [name, entry] : file.entries()) {
    if (!name.starts_with("grad.")) continue;
    EXPECT_LE(relative_error(parameters[our_name(name.substr(5))].grad(), file.tensor(name)), tolerance)
        << name;
  }
}

TEST(Transformer, TransNormerIsTheAuthors) {
  transnormer(Implementation::reference, at::kDouble, 1e-9);
  transnormer(Implementation::fused, at::kFloat, 1e-5);
}

}  // namespace
}  // namespace longreach
