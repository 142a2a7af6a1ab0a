// Keys of InfLLM-V2: help, ranges, and rules that span them.
#include "core/error.h"
#include "layers/attention/infllm/infllm.h"

namespace longreach {

void InfllmConfig::fields(FieldVisitor& visit) {
  const int64_t most = int64_t{1} << 30;
  visit.field(
      "kernel_size", kernel_size,
      {.help = "keys whose mean is scored, a multiple of kernel_stride", .allowed = between(1, most)});
  visit.field(
      "kernel_stride", kernel_stride,
      {.help = "keys from one mean to the next, a divisor of block_size", .allowed = between(1, most)});
  visit.field("block_size", block_size,
              {.help = "keys of a block: 16, 32, 64 or 128", .allowed = between(16, 128)});
  visit.field("num_blocks", num_blocks,
              {.help = "blocks of a query beside those of the window, first and own included",
               .allowed = between(1, most)});
  visit.field("first_blocks", first_blocks,
              {.help = "forced: the first blocks of the document", .allowed = between(0, most)});
  visit.field(
      "window", window,
      {.help = "forced: blocks of so many keys before the query's own, a multiple of block_size; with "
               "the own block",
       .allowed = between(0, most)});
  visit.field("dense_len", dense_len,
              {.help = "queries with fewer keys than this read all of them", .allowed = between(0, most)});
  visit.field("rope", rope, {.help = "rotary embedding on q and k (MiniCPM-SALA: false)"});
  visit.field("output_gate", output_gate,
              {.help = "outputs of the heads times sigmoid of a projection of x, o_gate (MiniCPM-SALA)"});
  if (const auto wrong = contradiction()) visit.reject(wrong->first, wrong->second);
}

std::optional<std::pair<std::string, std::string>> InfllmConfig::contradiction() const {
  if (block_size != 16 && block_size != 32 && block_size != 64 && block_size != 128)
    return {{"block_size", text("found ", block_size, ", expected 16, 32, 64 or 128")}};
  struct Divisor {
    const char *key, *of;
    int64_t value, divisor;
  };
  for (const auto& [key, of, value, divisor] :
       {Divisor{"kernel_size", "kernel_stride", kernel_size, kernel_stride},
        Divisor{"block_size", "kernel_stride", block_size, kernel_stride},
        Divisor{"window", "block_size", window, block_size}})
    if (value % divisor != 0)
      return {{key, text("found ", value, ", expected a multiple of ", of, " = ", divisor)}};
  if (num_blocks <= first_blocks)
    return {{"num_blocks", text("found ", num_blocks,
                                ", expected at least the own block and first_blocks = ", first_blocks)}};
  return std::nullopt;
}

void InfllmConfig::validate(const LayerSite&) const {
  if (const auto wrong = contradiction()) throw ConfigError(text(wrong->first, ": ", wrong->second));
}

std::vector<Limitation> InfllmConfig::limitations() const {
  if (dense_len <= 1) return {};
  return {{Ability::context_parallel,
           text("queries below dense_len = ", dense_len,
                " read every key, the others the blocks that they choose; dense_len = 0 can")}};
}

}  // namespace longreach
