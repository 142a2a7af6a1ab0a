// Every form and compression without a token.
#include <ATen/ops/ones.h>

#include "layers/attention/nsa/nsa.h"
#include "tests/support/no_tokens.h"

namespace longreach::test {
namespace {

at::Tensor compressed(const at::Tensor& x, const std::string& kind, const NsaOptions& options,
                      const at::Tensor& cu_seqlens) {
  const int64_t width = options.compress_block * kSize;
  const at::TensorOptions like = x.options().requires_grad(false);
  NsaCompression phi{.kind = kind};
  if (kind == "weighted") phi.weight = at::ones({kKeyHeads, options.compress_block}, like);
  if (kind == "linear") phi.weight = at::ones({kKeyHeads, width, kSize}, like);
  if (kind == "mlp") {
    phi.weight = at::ones({8, width}, like);
    phi.down_weight = at::ones({kSize, 8}, like);
  }
  return nsa_compress(x, phi, options, cu_seqlens);
}

TEST(NoTokens, Nsa) {
  for (const auto form : {NsaForm::paper, NsaForm::lucidrains})
    for (const char* kind : {"mean", "weighted", "linear", "mlp"})
      for (const int64_t block : {16, 8})  // by block_attention and beside it
        for (const bool fused : {false, true})
          expect_nothing(fused ? at::kFloat : at::kDouble, [&](const Nothing& in) -> Results {
            const NsaOptions options{.form = form,
                                     .compress_block = 8,
                                     .compress_stride = 4,
                                     .block_size = block,
                                     .num_blocks = 3,
                                     .window = 4};
            NsaInput input{.q = in.q,
                           .k = in.k,
                           .v = in.v,
                           .gate = at::ones({1, 0, kHeads, 3}, in.options()),
                           .k_cmp = compressed(in.k, kind, options, in.cu_seqlens),
                           .v_cmp = compressed(in.v, kind, options, in.cu_seqlens),
                           .cu_seqlens = in.cu_seqlens};
            if (form == NsaForm::lucidrains)
              input.memory_k = input.memory_v = at::ones({kKeyHeads, 2, kSize}, in.options());
            const NsaOutput out =
                (fused ? static_cast<NsaOutput (*)(const NsaInput&, const NsaOptions&, bool)>(nsa_attention)
                       : nsa_attention_reference)(input, options, false);
            return {out.o, out.block_indices};
          });
  expect_nothing(at::kFloat, [](const Nothing& in) -> Results {
    return {nsa_attention(in.q, in.k, in.v, {}, {.block_size = 16, .num_blocks = 3}, in.cu_seqlens).o};
  });
}

}  // namespace
}  // namespace longreach::test
