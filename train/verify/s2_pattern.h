// S2-Attention's pattern as configs of vector files name it.
#pragma once
#include "layers/attention/s2/s2.h"
#include "train/verify/vector_file.h"

namespace longreach::verify {

// block_size, local_blocks (a number, or one for each side), vert_stride, and what may be absent. Patterns are per
// kv head, or one for all heads where they do not differ; a step that is absent is max(1, vert_stride /
// step_heads). Throws UnknownCase for what is no pattern.
S2Pattern read_s2_pattern(const VectorFile& file, int64_t step_heads, int64_t kv_heads);

}  // namespace longreach::verify
