#include "tests/support/small_config.h"

#include <algorithm>

#include "core/config.h"
#include "core/error.h"
#include "layers/attention/attention.h"

namespace longreach::test {
namespace {

// `config` with every integer above 1 divided, or the next of its multiples by 2 that the key allows.
AttentionConfig divided(const AttentionConfig& config, int64_t divisor) {
  AttentionEntry entry{.config = config};
  for (const FieldHelp& row : help_of(fields_of(entry))) {
    const int64_t value = row.type == std::string("int") ? std::stoll(row.default_value) : 0;
    if (value <= 1) continue;
    const auto set = [&](int64_t size) {
      ConfigDocument document = ConfigDocument::from_text(to_toml(fields_of(entry)), "sizes");
      document.override_key(row.key, std::to_string(size));
      try {
        document.read(fields_of(entry));
      } catch (const ConfigError&) {
        return false;
      }
      return true;
    };
    int64_t size = std::max<int64_t>(1, value / divisor);
    while (!set(size) && size < value) size *= 2;
  }
  return entry.config;
}

// A small layer, as the matrix test has it.
LayerSite small_layer() {
  return {.hidden_size = 64,
          .num_heads = 4,
          .num_kv_heads = 2,
          .head_dim = 16,
          .num_layers = 2,
          .max_position_embeddings = 256};
}

}  // namespace

AttentionConfig small_config(const AttentionConfig& config) {
  for (int64_t divisor = 32; divisor > 1; divisor /= 2) {
    try {
      const AttentionConfig small = divided(config, divisor);
      make_attention(small, small_layer());
      return small;
    } catch (const ConfigError&) {  // these sizes do not fit each other
    }
  }
  return config;
}

}  // namespace longreach::test
