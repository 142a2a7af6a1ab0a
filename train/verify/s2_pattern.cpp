#include "train/verify/s2_pattern.h"

#include <algorithm>

namespace longreach::verify {
namespace {

// As VectorFile::integer_or; null stands for absent.
int64_t number_or(const VectorFile& file, const char* key, int64_t otherwise) {
  const bool null = file.config().contains(key) && file.config()[key].is_null();
  return null ? otherwise : file.integer_or(key, otherwise);
}

}  // namespace

S2Pattern read_s2_pattern(const VectorFile& file, int64_t step_heads, int64_t kv_heads) {
  const bool one = file.truth_or("homo_head", false);
  S2Pattern pattern{.block_size = file.integer("block_size"),
                    .vert_stride = file.integer("vert_stride"),
                    .head_sliding_offset = number_or(file, "head_sliding_offset", 0),
                    .heads = one ? 1 : kv_heads,
                    .num_dense_heads = number_or(file, "num_dense_heads", 0),
                    .causal = file.truth_or("causal", true)};
  pattern.head_sliding_step = number_or(file, "head_sliding_step",
                                        std::max<int64_t>(1, pattern.vert_stride / (one ? 1 : step_heads)));
  // A number, or one for each side.
  const bool sides = file.config().contains("local_blocks") && file.config()["local_blocks"].is_array();
  const std::vector<int64_t> local =
      sides ? file.integers("local_blocks") : std::vector<int64_t>(2, file.integer("local_blocks"));
  if (local.size() != 2)
    throw UnknownCase(one_line(text(file.path(), ": local_blocks: ", local.size(), " numbers, expected 2")));
  pattern.local_blocks = local[0];
  pattern.local_after = local[1];
  // Bidirectional strides count from the query: one mask serves all heads that are not dense.
  if (!pattern.causal && pattern.num_dense_heads == 0) pattern.heads = 1;
  try {
    pattern.check();
  } catch (const ConfigError& error) {
    throw UnknownCase(one_line(text(file.path(), ": ", error.what())));
  }
  return pattern;
}

}  // namespace longreach::verify
