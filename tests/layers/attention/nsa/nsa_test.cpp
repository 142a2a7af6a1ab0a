// Native sparse attention: the promises of a mechanism in every layout and compression, and the operator's
// own.
#include "layers/attention/nsa/nsa.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/minimum.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/config.h"
#include "core/error.h"
#include "layers/attention/attention.h"
#include "layers/attention/nsa/block_counts.h"
#include "layers/basic/rope.h"
#include "tests/support/gradients.h"
#include "tests/support/mechanism_checks.h"
#include "tests/support/random_tensors.h"

namespace longreach {
namespace {

using namespace test;
using ::testing::HasSubstr;

struct Named {
  const char* name;
  NsaConfig config;
};

const std::vector<Named>& configs() {
  static const std::vector<Named> all{
      {"means",
       {.compress_block = 16,
        .compress_stride = 16,
        .block_size = 16,
        .num_blocks = 2,
        .latest_blocks = 1,
        .window = 5}},
      {"overlapping_means",
       {.compress_block = 8,
        .compress_stride = 4,
        .block_size = 16,
        .num_blocks = 2,
        .latest_blocks = 1,
        .window = 7}},
      {"weighted",
       {.compress = "weighted",
        .compress_block = 8,
        .compress_stride = 4,
        .block_size = 16,
        .num_blocks = 2,
        .latest_blocks = 1,
        .window = 1}},
      {"linear",
       {.layout = "xunhaolai",
        .compress = "linear",
        .compress_block = 6,
        .compress_stride = 3,
        .block_size = 16,
        .num_blocks = 2,
        .first_blocks = 0,
        .latest_blocks = 1,
        .window = 9}},
      {"mlp",
       {.compress = "mlp",
        .compress_block = 4,
        .compress_stride = 4,
        .block_size = 32,
        .num_blocks = 3,
        .latest_blocks = 2,
        .window = 100,
        .compress_rope = "keys"}},
      {"lucidrains",
       {.layout = "lucidrains",
        .compress = "mlp",
        .compress_block = 8,
        .compress_stride = 4,
        .block_size = 8,
        .num_blocks = 2,
        .window = 6,
        .memory_slots = 2}},
      {"small_blocks",
       {.compress_block = 8,
        .compress_stride = 4,
        .block_size = 12,
        .num_blocks = 2,
        .latest_blocks = 1,
        .window = 5}},
  };
  return all;
}

class EveryNsa : public ::testing::TestWithParam<Named> {};
INSTANTIATE_TEST_SUITE_P(Nsa, EveryNsa, ::testing::ValuesIn(configs()),
                         [](const auto& about) { return about.param.name; });

TEST_P(EveryNsa, IsCausal) { expect_causal(GetParam().config, small_site()); }
TEST_P(EveryNsa, DecodesAsForward) { expect_decode_equals_forward(GetParam().config, norm_site()); }
TEST_P(EveryNsa, PackedDocumentsAreSeparate) {
  expect_packed_equals_separate(GetParam().config, norm_site());
}
TEST_P(EveryNsa, FusedIsTheFormula) { expect_fused_equals_reference(GetParam().config, norm_site()); }
TEST_P(EveryNsa, BFloat16IsClose) { expect_bfloat16_close(GetParam().config, norm_site()); }

TEST(Nsa, DecodesAsForwardOverManyBlocks) {
  expect_decode_equals_forward(configs()[1].config, small_site(), 90);
  expect_decode_equals_forward(configs()[5].config, small_site(), 70);
}

TEST(Nsa, SaysWhenDecodingIsFull) {
  EXPECT_EQ(overflow_message(configs()[0].config, small_site()),
            "decoding: 3 tokens seen and 3 more do not fit max_tokens = 4");
}

// The cache holds all keys, a compressed key every stride tokens, and the tokens of windows under way.
TEST(Nsa, TheCacheGrowsByKeysAndWindows) {
  const NsaConfig config = configs()[1].config;
  const int64_t row = 2 * 8 * 4;  // two key heads of 8 floats
  EXPECT_EQ(decode_bytes(config, small_site(), 5), 2 * row * (256 + 5));
  EXPECT_EQ(decode_bytes(config, small_site(), 43), 2 * row * (256 + 256 + 7));
}

struct Case {
  int64_t heads, kv_heads, tokens, block, stride, size, blocks, first, latest, window;
};

NsaInput random_input(const Case& c, const NsaOptions& options, at::ScalarType dtype, bool grad,
                      const at::Tensor& cu_seqlens = {}) {
  NsaInput in{.q = normal({1, c.tokens, c.heads, 8}, 1, dtype, grad),
              .k = normal({1, c.tokens, c.kv_heads, 8}, 2, dtype, grad),
              .v = normal({1, c.tokens, c.kv_heads, 6}, 3, dtype, grad),
              .gate = normal({1, c.tokens, c.heads, 3}, 4, dtype, grad)};
  in.k_cmp = nsa_compress(in.k, {}, options, cu_seqlens);
  in.v_cmp = nsa_compress(in.v, {}, options, cu_seqlens);
  in.cu_seqlens = cu_seqlens;
  return in;
}

NsaOptions options_of(const Case& c) {
  return {.compress_block = c.block,
          .compress_stride = c.stride,
          .block_size = c.size,
          .num_blocks = c.blocks,
          .first_blocks = c.first,
          .latest_blocks = c.latest,
          .window = c.window};
}

// Group sizes that are no powers of two, odd lengths, documents shorter than a window or empty.
TEST(NsaAttention, FusedIsTheReferenceForAnyGroupAndLength) {
  const std::vector<Case> cases{{1, 1, 37, 8, 8, 16, 2, 1, 1, 3},    {4, 2, 101, 8, 4, 16, 3, 1, 2, 16},
                                {6, 2, 77, 6, 3, 16, 3, 0, 1, 9},    {12, 2, 65, 16, 16, 16, 2, 1, 1, 5},
                                {16, 1, 131, 12, 5, 32, 3, 1, 1, 7}, {3, 1, 5, 8, 4, 16, 2, 1, 1, 4},
                                {2, 2, 1, 8, 8, 64, 3, 1, 2, 4},     {3, 3, 90, 8, 4, 20, 2, 1, 1, 200}};
  for (const Case& c : cases) {
    for (const bool packed : {false, true}) {
      const int32_t cut = static_cast<int32_t>(c.tokens / 3), end = static_cast<int32_t>(c.tokens);
      const at::Tensor documents = packed ? at::tensor({0, cut, cut, end}, at::kInt) : at::Tensor();
      const NsaOptions options = options_of(c);
      const NsaInput fused = random_input(c, options, at::kFloat, true, documents),
                     exact = random_input(c, options, at::kDouble, true, documents);
      const NsaOutput found = nsa_attention(fused, options, true),
                      wanted = nsa_attention_reference(exact, options, true);
      const std::string what = text(c.heads, " heads, ", c.tokens, " tokens, packed ", packed);
      EXPECT_LE(relative_error(found.o, wanted.o), 3e-6) << what;
      EXPECT_TRUE(found.block_indices.equal(wanted.block_indices)) << what;
      EXPECT_EQ(found.block_indices.scalar_type(), at::kInt);
      const at::Tensor seen = wanted.lse_cmp > -1e30;
      EXPECT_TRUE((found.lse_cmp > -1e30).equal(seen)) << what;
      if (seen.any().item<bool>()) {
        EXPECT_LE(relative_error(found.lse_cmp.masked_select(seen), wanted.lse_cmp.masked_select(seen)),
                  3e-6);
      }
      const at::Tensor dy = normal(wanted.o.sizes(), 9);
      found.o.backward(dy.to(at::kFloat));
      wanted.o.backward(dy);
      for (const auto member : {&NsaInput::q, &NsaInput::k, &NsaInput::v, &NsaInput::gate})
        EXPECT_LE(relative_error((fused.*member).grad(), (exact.*member).grad()), 5e-6) << what;
    }
  }
}

// How many entries of each list are blocks: int64 [B, T, Hl].
at::Tensor list_lengths(const NsaOutput& out) {
  const at::Tensor blocks = out.block_indices >= 0;
  return blocks.sum(-1).transpose(1, 2);
}

// A number of blocks a token and list, as in fla: by block_attention and beside it, one list a group of heads
// and one a head.
TEST(NsaAttention, BlockCountsOfEachToken) {
  for (const auto form : {NsaForm::paper, NsaForm::lucidrains}) {
    for (const int64_t block : {16, 12})
      for (const bool packed : {false, true}) {
        const Case c{4, 2, 150, 8, 4, block, 3, 1, 2, 16};
        const at::Tensor documents = packed ? at::tensor({0, 50, 50, 150}, at::kInt) : at::Tensor();
        NsaOptions options = options_of(c);
        options.form = form;
        options.shared_selection = block == 16;
        const int64_t lists = options.shared_selection ? 2 : 4;
        const NsaInput fused = random_input(c, options, at::kFloat, true, documents),
                       exact = random_input(c, options, at::kDouble, true, documents);
        const at::Tensor counts = (normal({1, c.tokens, lists}, 8).abs() * 7).to(at::kLong).remainder(6);
        const NsaOutput found = nsa_attention(fused, counts.to(at::kInt), options),
                        wanted = nsa_attention_reference(exact, counts, options);
        const std::string what =
            text("paper ", form == NsaForm::paper, ", packed ", packed, ", blocks of ", block);
        EXPECT_TRUE(found.block_indices.equal(wanted.block_indices)) << what;
        EXPECT_LE(relative_error(found.o, wanted.o), 3e-6) << what;
        const at::Tensor dy = normal(wanted.o.sizes(), 9);
        found.o.backward(dy.to(at::kFloat));
        wanted.o.backward(dy);
        for (const auto member : {&NsaInput::q, &NsaInput::k, &NsaInput::v, &NsaInput::gate})
          EXPECT_LE(relative_error((fused.*member).grad(), (exact.*member).grad()), 5e-6) << what;
        // A query of n blocks reads what it reads where all have n.
        for (const int64_t n : {3, 4, 5}) {
          NsaOptions all = options;
          all.num_blocks = n;
          const at::Tensor those =
              (counts == n).repeat_interleave(c.heads / lists, 2).unsqueeze(-1).expand_as(wanted.o);
          ASSERT_TRUE(those.any().item<bool>());
          EXPECT_LE(relative_error(found.o_slc.masked_select(those),
                                   nsa_attention(fused, all).o_slc.masked_select(those)),
                    1e-6)
              << what << " " << n;
        }
        const at::Tensor uniform = at::full({1, c.tokens, lists}, 3, at::kLong);
        EXPECT_TRUE(nsa_attention(fused, uniform, options).o.equal(nsa_attention(fused, options).o)) << what;
        if (form == NsaForm::lucidrains) continue;
        const at::Tensor own = packed ? at::cat({at::arange(50), at::arange(100)}) : at::arange(150),
                         most = (own.div(block, "floor") + 1).view({1, -1, 1});
        EXPECT_TRUE(list_lengths(found).equal(counts.minimum(most))) << what;
        const at::Tensor none = (counts == 0).repeat_interleave(c.heads / lists, 2).unsqueeze(-1);
        EXPECT_TRUE(found.o_slc.masked_select(none).eq(0).all().item<bool>()) << what;
        // More than there are: all.
        const at::Tensor huge = at::full({1, c.tokens, lists}, std::numeric_limits<int32_t>::max(), at::kInt);
        EXPECT_TRUE(list_lengths(nsa_attention(fused, huge, options)).equal(most.expand_as(counts))) << what;
      }
  }
}

TEST(NsaAttention, BlockCountsMustFit) {
  const Case c{4, 2, 40, 16, 16, 16, 2, 1, 1, 6};
  const NsaOptions options = options_of(c);
  const NsaInput in = random_input(c, options, at::kFloat, false);
  const auto message = [&](const at::Tensor& counts) -> std::string {
    try {
      nsa_attention(in.q, in.k, in.v, in.gate, counts, options);
    } catch (const UserError& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(message(at::full({1, 40, 2}, 1, at::kLong)), "");
  EXPECT_THAT(message(at::full({1, 40, 4}, 1, at::kLong)),
              HasSubstr("block_counts: shape [1, 40, 4], expected [1, 40, 2]"));
  EXPECT_THAT(message(at::full({1, 40, 2}, -1, at::kLong)),
              HasSubstr("block_counts: -1, expected 0 to 2147483647 blocks"));
  EXPECT_THAT(message(at::full({1, 40, 2}, int64_t{1} << 31, at::kLong)),
              HasSubstr("block_counts: 2147483648, expected 0 to 2147483647 blocks"));
  EXPECT_THAT(message(at::full({40, 2}, 1, at::kLong)), HasSubstr("block_counts: shape [40, 2]"));
  EXPECT_THAT(message(at::full({1, 40, 2}, 1, at::kFloat)), HasSubstr("block_counts: dtype Float"));
}

TEST(NsaAttention, GradientsAreThoseOfCentralDifferences) {
  const Case c{6, 2, 50, 8, 4, 16, 2, 1, 1, 6};
  const NsaOptions options = options_of(c);
  const NsaInput in = random_input(c, options, at::kDouble, false);
  const auto f = [&](const std::vector<at::Tensor>& x) {
    return nsa_attention_reference({.q = x[0],
                                    .k = x[1],
                                    .v = x[2],
                                    .gate = x[3],
                                    .k_cmp = nsa_compress(x[1], {}, options),
                                    .v_cmp = nsa_compress(x[2], {}, options)},
                                   options)
        .o;
  };
  EXPECT_LE(gradient_error(f, {in.q, in.k, in.v, in.gate}), 1e-6);
}

// The choice is not differentiated: with the compressed branch cut off, phi learns nothing.
TEST(NsaAttention, PhiLearnsThroughTheCompressedBranchAlone) {
  const Case c{4, 2, 60, 8, 4, 16, 2, 1, 1, 6};
  const NsaOptions options = options_of(c);
  NsaInput in = random_input(c, options, at::kFloat, false);
  for (const bool open : {false, true}) {
    in.k_cmp = in.k_cmp.detach().requires_grad_(true);
    in.gate = at::full({1, c.tokens, 1, 3}, 0.5);
    if (!open) in.gate.select(-1, 0).zero_();
    nsa_attention(in, options).o.sum().backward();
    EXPECT_EQ(in.k_cmp.grad().abs().max().item<double>() > 0, open);
  }
}

// Windows of 32 with stride 16 and blocks of 64: 1, 2, 2, 2, 1 halves of a stride, counted by hand.
TEST(NsaAttention, ImportanceIsWeightedByOverlap) {
  const NsaOptions options{.compress_block = 32,
                           .compress_stride = 16,
                           .block_size = 64,
                           .num_blocks = 2,
                           .first_blocks = 0,
                           .latest_blocks = 1,
                           .window = 4};
  const int64_t tokens = 200, windows = (tokens - 32) / 16 + 1;
  // Equal scores: the last query sees all eleven windows with probability 1/11.
  NsaInput in{.q = at::zeros({1, tokens, 2, 8}),
              .k = at::zeros({1, tokens, 1, 8}),
              .v = at::zeros({1, tokens, 1, 8})};
  in.k_cmp = at::zeros({1, windows, 1, 8});
  in.v_cmp = at::zeros({1, windows, 1, 8});
  for (const auto& scores : {nsa_attention(in, options, true).block_scores,
                             nsa_attention_reference(in, options, true).block_scores}) {
    const at::Tensor last = scores[0][0][tokens - 1] * static_cast<double>(windows) / 2.0;  // two heads vote
    const std::vector<double> weights{2 + 2 + 2 + 1, 1 + 2 + 2 + 2 + 1, 1 + 2 + 2 + 2, 0};
    for (int64_t block = 0; block < 4; ++block)
      EXPECT_NEAR(last[block].item<double>(), weights[static_cast<size_t>(block)], 1e-5) << block;
  }
}

TEST(NsaAttention, ForcedBlocksAreAlwaysChosen) {
  const Case c{4, 2, 150, 16, 16, 16, 4, 1, 2, 3};
  const NsaOptions options = options_of(c);
  const at::Tensor lists = nsa_attention(random_input(c, options, at::kFloat, false), options).block_indices;
  for (int64_t head = 0; head < 2; ++head)
    for (int64_t t = 0; t < c.tokens; ++t) {
      const at::Tensor row = lists[0][head][t];
      const int64_t own = t / 16;
      for (const int64_t forced : {int64_t{0}, std::max<int64_t>(own - 1, 0), own})
        EXPECT_TRUE((row == forced).any().item<bool>()) << t;
      EXPECT_EQ((row >= 0).sum().item<int64_t>(), std::min<int64_t>(own + 1, 4));
      EXPECT_LE(row.max().item<int64_t>(), own);
    }
}

TEST(NsaAttention, TheShortFormPoolsBlocks) {
  const Case c{4, 2, 70, 16, 16, 16, 3, 1, 2, 9};
  const NsaOptions options = options_of(c);
  const NsaInput in = random_input(c, options, at::kFloat, false);
  EXPECT_TRUE(nsa_attention(in.q, in.k, in.v, in.gate, options).o.equal(nsa_attention(in, options).o));
}

TEST(NsaAttention, NamesWhatDoesNotFit) {
  const Case c{4, 2, 40, 8, 4, 16, 2, 1, 1, 6};
  const NsaOptions options = options_of(c);
  NsaInput in = random_input(c, options, at::kFloat, false);
  in.k_cmp = in.k_cmp.narrow(1, 1, in.k_cmp.size(1) - 1);
  try {
    nsa_attention(in, options);
    FAIL();
  } catch (const ShapeError& error) {
    EXPECT_THAT(error.what(), HasSubstr("k_cmp"));
  }
}

std::string config_error(const std::string& toml) {
  NsaConfig config;
  try {
    ConfigDocument::from_text(toml, "test.toml").read(fields_of(config));
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

TEST(NsaConfigKeys, RulesThatSpanKeys) {
  EXPECT_THAT(config_error("compress_block = 8\ncompress_stride = 9"), HasSubstr("compress_stride"));
  EXPECT_THAT(config_error("num_blocks = 2"), HasSubstr("forced blocks"));
  EXPECT_THAT(config_error("layout = \"lucidrains\"\ncompress_stride = 24"),
              HasSubstr("divisor of block_size"));
  EXPECT_THAT(config_error("block_size = 0"), HasSubstr("block_size"));
  EXPECT_THAT(config_error("num_blocks = 0"), HasSubstr("num_blocks"));
  EXPECT_THAT(config_error("compress = \"lineal\""), HasSubstr("linear"));
  EXPECT_EQ(config_error("compress = \"linear\"\ncompress_block = 32\ncompress_stride = 16"), "");
}

// Every parameter has one name in the layout's own code, and no name stands for nothing.
TEST(NsaCheckpoint, NamesCoverTheParameters) {
  for (const auto& [name, config] : configs()) {
    const auto module = make_attention(config, small_site());
    std::vector<std::string> parameters, named;
    for (const auto& item : module->named_parameters()) parameters.push_back(item.key());
    for (const auto& [ours, theirs] : nsa_checkpoint_names(config, small_site())) named.push_back(ours);
    EXPECT_THAT(named, ::testing::UnorderedElementsAreArray(parameters)) << name;
  }
  const auto fla = nsa_checkpoint_names({}, small_site());
  EXPECT_THAT(
      fla, ::testing::Contains(std::pair<std::string, std::string>("g_proj.weight", "attn.g_proj.weight")));
  const auto lucidrains = nsa_checkpoint_names(configs()[5].config, small_site());
  EXPECT_THAT(lucidrains, ::testing::Contains(
                              std::pair<std::string, std::string>("k_proj.weight", "to_qkv.weight[32:48]")));
}

TEST(NsaFlops, CountsWhatAQuerySees) {
  const LayerSite site = small_site();
  const NsaConfig config{.compress_block = 4,
                         .compress_stride = 4,
                         .block_size = 4,
                         .num_blocks = 2,
                         .first_blocks = 1,
                         .latest_blocks = 1,
                         .window = 3};
  // Eight tokens: windows seen 0 0 0 1 1 1 1 2; keys selected 1 2 3 4 and 5 6 7 8; keys in the window 1 2 3 3
  // ...
  const double keys = (6 + 36 + 1 + 2 + 6 * 3) / 8.0;
  const double projections = 2.0 * 24 * (32 + 16 + 16 + 32 + 12);
  const double phi = 2.0 * 2.0 * (2 * 8 * 4) / 4.0;
  EXPECT_DOUBLE_EQ(make_attention(config, site)->flops_per_token(8), projections + phi + 4.0 * 32 * keys);
}

}  // namespace
}  // namespace longreach
