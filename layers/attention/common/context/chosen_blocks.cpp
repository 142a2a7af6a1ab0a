#include "layers/attention/common/context/chosen_blocks.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include "layers/ops/document.h"

namespace longreach {
namespace {

// Where each block of the piece's document lies among the piece's keys, in blocks; -1: it was not fetched.
std::vector<int32_t> places_of_blocks(const PieceKeys& keys, const Piece& piece, int64_t size) {
  const int64_t end = piece.begin + piece.tokens - piece.history_begin;
  std::vector<int32_t> places(static_cast<size_t>(ceil_div(end, size)), -1);
  int32_t next = 0;
  for (const Interval& tokens : keys.tokens_of(piece))
    for (int64_t at = tokens.begin; at < tokens.end; at += size)
      places[static_cast<size_t>((at - piece.history_begin) / size)] = next++;
  return places;
}

at::Tensor renumbered(const at::Tensor& indices, const std::vector<int32_t>& places) {
  const at::Tensor host = indices.to(at::kCPU).contiguous(), result = at::empty(host.sizes(), host.options());
  const auto* from = host.const_data_ptr<int32_t>();
  auto* to = result.mutable_data_ptr<int32_t>();
  for (int64_t i = 0; i < host.numel(); ++i) to[i] = from[i] < 0 ? -1 : places[static_cast<size_t>(from[i])];
  return result.to(indices.device());
}

}  // namespace

HistoryOf history_of_blocks(const BlocksOf& blocks_of, int64_t block_size) {
  return [=](int rank, const Piece& piece) {
    std::vector<Interval> tokens;
    for (const int64_t block : blocks_of(rank, piece))
      tokens.push_back(
          {piece.history_begin + block * block_size, piece.history_begin + (block + 1) * block_size});
    return tokens;
  };
}

AttendedPieces attend_blocks_in_context(const std::shared_ptr<const ContextGroup>& context,
                                        const Heads& heads, const std::vector<BlockLists>& lists,
                                        int64_t block_size, const BlocksOf& blocks_of,
                                        const OperatorOf& operator_of) {
  const PieceKeys keys(context, history_of_blocks(blocks_of, block_size));
  std::vector<PieceCall> calls;
  for (size_t i = 0; i < lists.size(); ++i) {
    const Piece& piece = context->pieces()[i];
    BlockLists own = lists[i];
    if (piece.continued()) own.indices = renumbered(own.indices, places_of_blocks(keys, piece, block_size));
    calls.push_back(keys.call(piece, operator_of(own)));
  }
  return attend_pieces(keys.exchange(), std::move(calls), heads);
}

OperatorOf block_operators(Implementation implementation, const BlockAttentionOptions& options) {
  return [=](const BlockLists& lists) { return block_operator(implementation, lists, options); };
}

BlocksOf share_chosen_blocks(const ContextGroup& context, const std::vector<BlockLists>& lists,
                             int64_t block_size) {
  const SequenceLayout &layout = context.layout(), blocks = layout.blocks(block_size);
  const int64_t bytes = ceil_div(blocks.total(), 8);
  // Where the blocks of each document begin among those of the row.
  const auto first_block = [begins = blocks.cu_seqlens(), layout](const Piece& piece) {
    return int64_t{begins[layout.document_number(piece.history_begin)]};
  };
  const at::Tensor own = at::zeros({bytes}, at::kByte), all = at::empty({bytes * layout.ranks()}, at::kByte);
  auto* bits = own.mutable_data_ptr<uint8_t>();
  for (size_t i = 0; i < lists.size(); ++i) {
    const Piece& piece = context.pieces()[i];
    if (!piece.continued()) continue;
    const int64_t first = first_block(piece), before = piece.before() / block_size;
    const at::Tensor indices = lists[i].indices.to(at::kCPU).contiguous();
    const auto* entry = indices.const_data_ptr<int32_t>();
    for (int64_t e = 0; e < indices.numel(); ++e)
      if (const int64_t bit = first + entry[e]; entry[e] >= 0 && entry[e] < before)
        bits[bit / 8] = static_cast<uint8_t>(bits[bit / 8] | 1U << bit % 8);
  }
  if (context.alone())
    all.copy_(own);
  else
    context.ranks().all_gather(all, own, "chosen blocks").wait();
  const BlocksOf blocks_of = [=](int rank, const Piece& piece) {
    const auto* of_rank = all.const_data_ptr<uint8_t>() + rank * bytes;
    const int64_t first = first_block(piece);
    std::vector<int64_t> chosen;
    for (int64_t block = 0; block < piece.before() / block_size; ++block)
      if (const int64_t bit = first + block; of_rank[bit / 8] >> bit % 8 & 1) chosen.push_back(block);
    return chosen;
  };
  for (const Piece& piece : context.pieces()) {
    if (!piece.continued()) continue;
    context.choices().earlier += piece.before() / block_size;
    context.choices().chosen += static_cast<int64_t>(blocks_of(context.rank(), piece).size());
  }
  return blocks_of;
}

}  // namespace longreach
