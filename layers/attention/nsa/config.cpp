// Keys of native sparse attention: help, ranges, and rules that span them.
#include <numeric>

#include "core/error.h"
#include "layers/attention/nsa/nsa.h"

namespace longreach {

int64_t NsaConfig::grain() const { return std::lcm(block_size, compress_stride); }

void NsaConfig::fields(FieldVisitor& visit) {
  const int64_t most = int64_t{1} << 30;
  visit.field("layout", layout,
              {.help = "conventions: fla (the paper's; gates a head), xunhaolai (gates a token), lucidrains "
                       "(windows end at strides, memory slots, choice by mean logits, interleaved rotary)",
               .allowed = one_of({"fla", "xunhaolai", "lucidrains"})});
  visit.field(
      "compress", compress,
      {.help = "what turns a window of keys into one: mean, weighted (a weight a position), linear, mlp",
       .allowed = one_of({"mean", "weighted", "linear", "mlp"})});
  visit.field("compress_block", compress_block,
              {.help = "tokens of a compressed window (l)", .allowed = between(1, most)});
  visit.field("compress_stride", compress_stride,
              {.help = "tokens from one window to the next (d), at most compress_block",
               .allowed = between(1, most)});
  visit.field(
      "block_size", block_size,
      {.help = "tokens of a selected block (l'); 16, 32, 64 and 128 are fast", .allowed = between(1, most)});
  visit.field(
      "num_blocks", num_blocks,
      {.help = "selected blocks of a query (n), forced ones included; lucidrains: the own block on top",
       .allowed = between(1, most)});
  visit.field(
      "first_blocks", first_blocks,
      {.help = "forced: the first blocks of the document (not lucidrains)", .allowed = between(0, most)});
  visit.field("latest_blocks", latest_blocks,
              {.help = "forced: the query's own block and those before it (not lucidrains)",
               .allowed = between(1, most)});
  visit.field(
      "window", window,
      {.help = "keys of the window, the query's own included (xunhaolai, lucidrains: their value + 1)",
       .allowed = between(1, most)});
  visit.field("compress_rope", compress_rope,
              {.help = "keys (compress rotated keys, fla), compressed (rotate compressed keys at i * stride, "
                       "xunhaolai), or auto (fla with means: keys, else compressed); lucidrains: neither",
               .allowed = one_of({"auto", "keys", "compressed"})});
  visit.field(
      "memory_slots", memory_slots,
      {.help = "lucidrains: learned compressed keys that every query sees", .allowed = between(0, most)});
  if (compress_stride > compress_block)
    visit.reject("compress_stride", text("found ", compress_stride, ", expected at most compress_block = ",
                                         compress_block, " (tokens between windows would never be read)"));
  if (layout == "lucidrains") {
    if (block_size % compress_stride != 0)
      visit.reject("compress_stride", text("found ", compress_stride, ", expected a divisor of block_size = ",
                                           block_size, " (lucidrains)"));
    if (compress_rope == "keys")
      visit.reject("compress_rope", "found keys, expected auto or compressed (lucidrains rotates neither)");
  } else if (first_blocks + latest_blocks > num_blocks) {
    visit.reject("num_blocks", text("found ", num_blocks, ", expected at least the ",
                                    first_blocks + latest_blocks, " forced blocks"));
  }
}

}  // namespace longreach
