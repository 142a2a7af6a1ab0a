// Mechanisms at sizes that suit tests of whole models.
#pragma once
#include "layers/attention/mechanisms.h"

namespace longreach::test {

// `config` with every size divided by the same power of two, as far as a layer can still be built: small
// enough that a short text has several windows, blocks and chunks.
AttentionConfig small_config(const AttentionConfig& config);

}  // namespace longreach::test
