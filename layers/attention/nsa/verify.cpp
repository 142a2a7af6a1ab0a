// Cases of native sparse attention: the operators of flash-linear-attention and of XunhaoLai's code, and the
// layer of lucidrains'.
#include "layers/attention/nsa/block_counts.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/topk.h>

#include <algorithm>
#include <limits>

#include "layers/basic/linear.h"
#include "layers/basic/norm.h"
#include "layers/basic/rope.h"
#include "train/verify/case.h"

namespace longreach {
namespace {

using verify::Case;
using verify::VectorFile;

NsaOutput attend(const Case& run, const NsaInput& in, const NsaOptions& options, bool keep_scores = false,
                 const at::Tensor& block_counts = {}) {
  return nsa_attention_by(run.implementation, in, block_counts, options, keep_scores);
}

[[noreturn]] void unknown(const Case& run, const std::string& what) { run.refuse("config of `nsa`: ", what); }

at::Tensor bounds_of(Case& run) {
  return run.has("in.cu_seqlens") ? run.integers("in.cu_seqlens").to(at::kInt).contiguous() : at::Tensor();
}

// flash-linear-attention: windows are the blocks, the last one partial; the first, current and previous block
// are forced. Its predecessor forces the current one alone (legacy_*).
void run_fla(Case& run) {
  const VectorFile& file = run.file;
  const int64_t size = file.integer("block_size");
  NsaOptions options{.compress_block = size,
                     .compress_stride = size,
                     .partial_windows = true,
                     .block_size = size,
                     .window = file.integer("window_size"),
                     .vote = BlockScores::Vote::mean};
  // One number for all tokens, or a tensor of one a token and list.
  const bool counted = run.has("in.block_counts");
  if (!counted) options.num_blocks = file.integer("block_counts");
  const at::Tensor cu_seqlens = bounds_of(run);
  NsaInput in{.q = run.leaf("in.q"), .k = run.leaf("in.k"), .v = run.leaf("in.v"), .gate = run.leaf("in.g")};
  options.scale = file.scale(in.q.size(-1));
  in.k_cmp = nsa_compress(in.k, {}, options, cu_seqlens);
  in.v_cmp = nsa_compress(in.v, {}, options, cu_seqlens);
  in.cu_seqlens = cu_seqlens;
  const at::Tensor counts = counted ? run.integers("in.block_counts") : at::Tensor();
  const NsaOutput out = attend(run, in, options, false, counts);
  run.produce("o", out.o);
  run.produce("o_cmp", out.o_cmp);
  run.produce("o_slc", out.o_slc);
  run.produce("o_swa", out.o_win);
  run.produce("k_cmp", in.k_cmp);
  run.produce("v_cmp", in.v_cmp);
  // The file writes -1e30 where no window is visible.
  const at::Tensor lse = out.lse_cmp.transpose(1, 2);
  run.produce("lse_cmp", lse.masked_fill(lse == -std::numeric_limits<double>::infinity(), -1e30));
  run.produce_lists("block_indices", out.block_indices.transpose(1, 2));
  if (!run.has("out.legacy_o") && !run.has("out.legacy_block_indices")) return;
  options.first_blocks = 0;
  options.latest_blocks = 1;
  const NsaOutput legacy = attend(run, in, options, false, counts);
  run.produce("legacy_o", legacy.o);
  run.produce_lists("legacy_block_indices", legacy.block_indices.transpose(1, 2));
}

NsaCompression phi_of(Case& run, const char* weight, bool positions) {
  const std::string type = run.file.word("compress_type");
  NsaCompression phi;
  if (type == "linear") {
    phi.kind = "linear";
  } else if (type == "weightedpool") {
    phi.kind = "weighted";
  } else if (type != "avgpool") {
    unknown(run, text("compress_type `", type, "`, known: linear, weightedpool, avgpool"));
  }
  if (phi.kind != "mean") phi.weight = run.leaf(text("param.", weight));
  if (positions && run.has("param.intra_block_pe")) phi.positions = run.leaf("param.intra_block_pe");
  return phi;
}

// Positions of tokens, or of every stride-th, within their documents: int64 [1, N].
at::Tensor places(const at::Tensor& bounds, int64_t stride) {
  std::vector<at::Tensor> parts;
  const auto* bound = bounds.const_data_ptr<int32_t>();
  for (int64_t n = 0; n + 1 < bounds.numel(); ++n)
    parts.push_back(at::arange(bound[n + 1] - bound[n], at::kLong) * stride);
  return at::cat(parts).unsqueeze(0);
}

// XunhaoLai: packed tokens N H D; phi reads keys before the rotary embedding, compressed keys stand at i
// stride.
void run_xunhaolai(Case& run) {
  const VectorFile& file = run.file;
  const NsaOptions options{.compress_block = file.integer("kernel_size"),
                           .compress_stride = file.integer("kernel_stride"),
                           .block_size = file.integer("block_size"),
                           .num_blocks = file.integer("topk"),
                           .first_blocks = file.integer("init_blocks"),
                           .latest_blocks = file.integer("local_blocks"),
                           .window = file.integer("window_size") + 1,
                           .scale = file.scale(file.integer("D"))};
  const at::Tensor q = run.leaf("in.q").unsqueeze(0), k = run.leaf("in.k").unsqueeze(0),
                   v = run.leaf("in.v").unsqueeze(0), bounds = bounds_of(run);
  if (!bounds.defined()) unknown(run, "`in.cu_seqlens` is missing");
  const at::Tensor windows = window_cu_seqlens(nsa_windows(options, bounds));
  RotaryEmbedding rotary({.theta = file.real("rope_base")}, q.size(-1), q.size(1));
  const auto turn = [&](const at::Tensor& x, const at::Tensor& at) {
    return rotate(x, rotary.at(at, x.scalar_type()));
  };
  const at::Tensor at = places(bounds, 1);
  NsaInput in{.q = turn(q, at), .k = turn(k, at), .v = v, .gate = run.leaf("in.g").unsqueeze(0)};
  const at::Tensor k_cmp = nsa_compress(k, phi_of(run, "compress_key", true), options, bounds);
  in.k_cmp = turn(k_cmp, places(windows, options.compress_stride));
  in.v_cmp = nsa_compress(v, phi_of(run, "compress_value", false), options, bounds);
  in.cu_seqlens = bounds;
  const NsaOutput out = attend(run, in, options, true);
  run.produce("o", out.o[0]);
  run.produce("o_cmp", out.o_cmp[0]);
  run.produce("o_slc", out.o_slc[0]);
  run.produce("o_swa", out.o_win[0]);
  run.produce("compressed_k", k_cmp[0]);
  run.produce("compressed_v", in.v_cmp[0]);
  run.produce("compressed_cu_seqlens", windows);
  run.produce_lists("topk_idx", out.block_indices[0]);
  // The file writes 0 where a block is no candidate and 1e30 where it is forced, in the future too.
  const at::Tensor own = at[0].div(options.block_size, "floor").unsqueeze(1);
  const at::Tensor block = at::arange(out.block_scores.size(-1), at::kLong);
  const at::Tensor latest = (block <= own).logical_and(block > own - options.latest_blocks);
  run.produce("block_score", out.block_scores[0].clamp_min(0.0).masked_fill(
                                 latest.logical_or(block < options.first_blocks), 1e30));
}

NsaCompression lucidrains_phi(Case& run, const std::string& letter) {
  const std::string mlp = text("param.", letter, "_compress.");
  return {.kind = "mlp",
          .weight = run.leaf(mlp + "1.weight"),
          .bias = run.leaf(mlp + "1.bias"),
          .down_weight = run.leaf(mlp + "3.weight"),
          .down_bias = run.leaf(mlp + "3.bias"),
          .positions = run.leaf(text("param.", letter, "_intrablock_positions"))};
}

NsaOptions lucidrains_options(const Case& run) {
  const VectorFile& file = run.file;
  if (!file.truth_or("causal", false)) unknown(run, "causal: false, known: true");
  if (file.truth_or("use_diff_topk", false)) unknown(run, "use_diff_topk: true, known: false");
  const int64_t block = file.integer("compress_block_size");
  return {.form = NsaForm::lucidrains,
          .compress_block = block,
          .compress_stride = file.integer_or("compress_block_sliding_stride", block),
          .block_size = file.integer("selection_block_size"),
          .num_blocks = file.integer("num_selected_blocks"),
          .window = file.integer("sliding_window_size") + 1,
          .shared_selection = file.truth_or("query_heads_share_selected_kv", true)};
}

// The values and, as torch.topk orders equal ones, the indices that the authors' choice begins with: among
// the blocks whose windows are all there.
void produce_choice(Case& run, const at::Tensor& scores, const NsaOptions& options) {
  const int64_t ratio = options.block_size / options.compress_stride;
  const int64_t blocks = run.leaves.at("x").size(1) / options.compress_stride / ratio;
  const auto [best, indices] = at::topk(scores.narrow(-1, 0, blocks), std::min(options.num_blocks, blocks));
  run.produce("selected_values", best);
  run.produce_lists("selected_block_indices", indices);
}

// lucidrains: the whole layer, norm included.
void run_lucidrains(Case& run) {
  const VectorFile& file = run.file;
  const int64_t size = file.integer("dim_head"), heads = file.integer("heads"),
                kv_heads = file.integer_or("kv_heads", heads);
  const NsaOptions options = lucidrains_options(run);
  at::Tensor x = run.leaf("in.x");
  const int64_t batch = x.size(0), tokens = x.size(1);
  if (file.truth_or("norm", true))
    x = rms_norm(x, run.leaf("param.norm.weight"), std::numeric_limits<double>::epsilon());
  const at::Tensor qkv = linear_map(x, run.leaf("param.to_qkv.weight")).view({batch, tokens, -1, size});
  const at::Tensor q = qkv.narrow(2, 0, heads), k = qkv.narrow(2, heads, kv_heads),
                   v = qkv.narrow(2, heads + kv_heads, kv_heads);
  // Frequencies are the file's, a parameter of theirs that nothing trains; feature pairs lie side by side.
  const at::Tensor angles = at::arange(tokens, at::kDouble).unsqueeze(1) *
                            run.file.tensor("param.rotary_emb.freqs").to(at::kDouble);
  run.used.insert("param.rotary_emb.freqs");
  const auto turn = [&](const at::Tensor& heads_of) {
    const at::Tensor halves = heads_of.unflatten(-1, {-1, 2}).transpose(-1, -2).flatten(-2);
    const auto all = [&](const at::Tensor& table) {
      return table.to(run.wide()).unsqueeze(0).expand({batch, -1, -1});
    };
    return rotate(halves, {all(angles.cos()), all(angles.sin())});
  };
  NsaInput in{.q = turn(q), .k = turn(k), .v = v, .q_cmp = q};
  in.gate = at::sigmoid(linear_map(x, run.leaf("param.to_strategy_combine.0.weight"),
                                   run.leaf("param.to_strategy_combine.0.bias")))
                .view({batch, tokens, heads, 3});
  in.k_cmp = nsa_compress(k, lucidrains_phi(run, "k"), options);
  in.v_cmp = nsa_compress(v, lucidrains_phi(run, "v"), options);
  const at::Tensor memory = run.leaf("param.compress_mem_kv");
  in.memory_k = memory[0];
  in.memory_v = memory[1];
  const NsaOutput out = attend(run, in, options, true);
  run.produce("o", linear_map(out.o.flatten(2), run.leaf("param.combine_heads.weight")));
  produce_choice(run, out.block_scores, options);
}

}  // namespace

void NsaConfig::verify(Case& run) {
  const nlohmann::json& config = run.file.config();
  if (config.contains("block_counts") || run.has("in.block_counts")) return run_fla(run);
  if (config.contains("kernel_stride")) return run_xunhaolai(run);
  if (config.contains("num_selected_blocks")) return run_lucidrains(run);
  unknown(run, "of no known kind: " + config.dump());
}

}  // namespace longreach
