// block_attention over lists that keep a tenth of the causal blocks: what a learned selection would leave.
#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <random>

#include "layers/ops/block_attention/block_attention.h"
#include "train/bench/bench_case.h"

namespace longreach::bench {
namespace {

constexpr int64_t kBlock = 64;
constexpr double kKept = 0.1;

int64_t blocks_of(int64_t tokens) { return (tokens + kBlock - 1) / kBlock; }

// Of `causal` blocks that a row could read.
int64_t kept_blocks(int64_t causal) {
  return std::max<int64_t>(1, std::llround(kKept * static_cast<double>(causal)));
}

// A row's own block and others drawn at random from those before it, ascending: the same for the same head
// and row.
std::vector<int32_t> kept_row(int64_t head, int64_t row) {
  std::mt19937_64 random(static_cast<uint64_t>(head * 1000003 + row));
  std::vector<int32_t> before(static_cast<size_t>(row)), kept;
  std::iota(before.begin(), before.end(), 0);
  std::sample(before.begin(), before.end(), std::back_inserter(kept), kept_blocks(row + 1) - 1, random);
  kept.push_back(static_cast<int32_t>(row));
  return kept;
}

// int32 [1, heads, rows, slots] for the query blocks [first, first + rows) of a sequence.
at::Tensor kept_lists(int64_t heads, int64_t first, int64_t rows) {
  const int64_t slots = kept_blocks(first + rows);
  at::Tensor lists = at::full({1, heads, rows, slots}, -1, at::kInt);
  auto* out = lists.mutable_data_ptr<int32_t>();
  for (int64_t head = 0; head < heads; ++head) {
    for (int64_t row = first; row < first + rows; ++row, out += slots) {
      std::ranges::copy(kept_row(head, row), out);
    }
  }
  return lists;
}

// Lists are made once a shape: a call measures the operator alone.
class Fused {
 public:
  at::Tensor operator()(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
    at::Tensor& lists = lists_[{q.size(2), q.size(1)}];
    if (!lists.defined()) lists = kept_lists(q.size(2), 0, blocks_of(q.size(1)));
    return block_attention(q, k, v, {.indices = lists, .query_block = kBlock, .key_block = kBlock}).o;
  }

 private:
  std::map<std::pair<int64_t, int64_t>, at::Tensor> lists_;
};

// The queries are the last of the sequence and need not start with a block: each gets its block's list.
at::Tensor reference(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  const int64_t queries = q.size(1), first = k.size(1) - queries, first_block = first / kBlock;
  const at::Tensor blocks = kept_lists(q.size(2), first_block, blocks_of(k.size(1)) - first_block);
  const at::Tensor rows = at::arange(first, k.size(1)).floor_divide(kBlock) - first_block;
  const at::Tensor lists = blocks.index_select(2, rows);
  return block_attention_reference(q, k, v, {.indices = lists, .query_block = 1, .key_block = kBlock}).o;
}

// Pairs of a query and a key that it sees, a head.
double visible_pairs(int64_t tokens) {
  double pairs = 0;
  for (int64_t row = 0; row < blocks_of(tokens); ++row) {
    const auto queries = static_cast<double>(std::min(kBlock, tokens - row * kBlock));
    pairs += static_cast<double>((kept_blocks(row + 1) - 1) * kBlock) * queries + queries * (queries + 1) / 2;
  }
  return pairs;
}

}  // namespace

double causal_over_listed_pairs(int64_t tokens) {
  return static_cast<double>(tokens) * static_cast<double>(tokens + 1) / 2 / visible_pairs(tokens);
}

BenchCase block_attention_case() {
  BenchCase result;
  result.name = "block_attention";
  result.help = "softmax attention over a tenth of the causal 64 x 64 blocks";
  result.fused = Fused();
  result.reference = reference;
  result.flops = [](const Setting& s) { return softmax_flops(s, 0) / causal_over_listed_pairs(s.tokens); };
  // lse, and the transposed lists.
  result.state_bytes = [](const Setting& s) {
    const int64_t rows = blocks_of(s.tokens);
    return s.batch * s.heads * s.tokens * int64_t{sizeof(float)} +
           s.heads * rows * kept_blocks(rows) * int64_t{sizeof(int32_t)};
  };
  result.for_peers = [](int64_t) -> nlohmann::json { return {{"kind", "blocks"}, {"block", kBlock}}; };
  return result;
}

}  // namespace longreach::bench
