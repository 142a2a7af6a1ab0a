// Cases of S2-Attention: its patterns as configs of vector files name them, and attention over them.
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>

#include "layers/attention/s2/s2.h"
#include "layers/ops/block_attention/block_attention.h"
#include "train/verify/case.h"

namespace longreach {
namespace {

using verify::Case;
using verify::Qkv;
using verify::VectorFile;

// As VectorFile::integer_or; null stands for absent.
int64_t number_or(const VectorFile& file, const char* key, int64_t otherwise) {
  const bool null = file.config().contains(key) && file.config()[key].is_null();
  return null ? otherwise : file.integer_or(key, otherwise);
}

// block_size, local_blocks (a number, or one for each side), vert_stride, and what may be absent. Patterns
// are per kv head, or one for all heads where they do not differ; a step that is absent is max(1, vert_stride
// / heads).
S2Pattern read_pattern(const Case& run, int64_t heads, int64_t kv_heads) {
  const VectorFile& file = run.file;
  const bool one = file.truth_or("homo_head", false);
  S2Pattern pattern{.block_size = file.integer("block_size"),
                    .vert_stride = file.integer("vert_stride"),
                    .head_sliding_offset = number_or(file, "head_sliding_offset", 0),
                    .heads = one ? 1 : kv_heads,
                    .num_dense_heads = number_or(file, "num_dense_heads", 0),
                    .causal = file.truth_or("causal", true)};
  pattern.head_sliding_step =
      number_or(file, "head_sliding_step", std::max<int64_t>(1, pattern.vert_stride / (one ? 1 : heads)));
  // A number, or one for each side.
  const bool sides = file.config().contains("local_blocks") && file.config()["local_blocks"].is_array();
  const std::vector<int64_t> local =
      sides ? file.integers("local_blocks") : std::vector<int64_t>(2, file.integer("local_blocks"));
  if (local.size() != 2) run.refuse("local_blocks: ", local.size(), " numbers, expected 2");
  pattern.local_blocks = local[0];
  pattern.local_after = local[1];
  // Bidirectional strides count from the query: one mask serves all heads that are not dense.
  if (!pattern.causal && pattern.num_dense_heads == 0) pattern.heads = 1;
  run.known([&] { pattern.check(); });
  return pattern;
}

// The rows of a mask [H, M, N] as compressed sparse rows: where each begins, and its columns, -1 behind them.
void produce_sparse_rows(Case& run, const at::Tensor& mask) {
  const at::Tensor counts = mask.sum(-1), ends = counts.cumsum(1);
  const int64_t heads = mask.size(0), longest = std::max<int64_t>(ends.max().item<int64_t>(), 0);
  at::Tensor crow = at::zeros({heads, mask.size(1) + 1}, at::kLong);
  crow.narrow(1, 1, mask.size(1)).copy_(ends);
  at::Tensor col = at::full({heads, longest}, -1, at::kLong);
  for (int64_t head = 0; head < heads; ++head) {
    const at::Tensor columns = mask[head].nonzero().select(1, 1);
    col[head].narrow(0, 0, columns.numel()).copy_(columns);
  }
  run.produce("block_mask", mask);
  run.produce("crow", crow);
  run.produce("col", col);
}

}  // namespace

void S2Config::verify(Case& run) {
  const VectorFile& file = run.file;
  const Qkv in = read_qkv(run);
  const int64_t heads = in.q.size(2), past = file.integer_or("past_len", 0), tokens = in.k.size(1);
  const S2Pattern pattern = read_pattern(run, heads, in.k.size(2));
  const int64_t size = pattern.block_size;
  if (past % size != 0 || past + in.q.size(1) != tokens)
    run.refuse("past_len ", past, ", expected whole blocks of ", size, " and queries for the rest of ",
               tokens, " tokens");
  const at::Tensor mask = s2_block_mask(pattern, (tokens + size - 1) / size, past / size);
  produce_sparse_rows(run, pattern.heads == 1 ? mask : mask.repeat_interleave(heads / pattern.heads, 0));
  const BlockLists lists{.indices = s2_lists(pattern, tokens, past, size),
                         .query_block = size,
                         .key_block = size,
                         .causal = pattern.causal};
  const double usual = 1.0 / std::sqrt(static_cast<double>(in.q.size(3)));
  const double scale = file.config().contains("sm_scale") ? file.real("sm_scale") : usual;
  const BlockAttentionOutput out =
      block_attention_by(run.implementation, in.q, in.k, in.v, lists, {.scale = scale});
  run.produce_sequence("o", out.o);
  run.produce("lse", out.lse);
}

}  // namespace longreach
