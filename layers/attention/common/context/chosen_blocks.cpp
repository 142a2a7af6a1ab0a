#include "layers/attention/common/context/chosen_blocks.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <utility>

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

std::vector<Interval> tokens_of_blocks(const Piece& piece, const std::vector<int64_t>& blocks, int64_t size) {
  std::vector<Interval> tokens;
  for (const int64_t block : blocks)
    tokens.push_back({piece.history_begin + block * size, piece.history_begin + (block + 1) * size});
  return tokens;
}

// The blocks before a piece that its lists name.
std::vector<int64_t> blocks_before(const Piece& piece, const BlockLists& lists) {
  const int64_t before = (piece.begin - piece.history_begin) / lists.key_block;
  std::vector<bool> named(static_cast<size_t>(before), false);
  const at::Tensor indices = lists.indices.to(at::kCPU).contiguous();
  const auto* entry = indices.const_data_ptr<int32_t>();
  for (int64_t i = 0; i < indices.numel(); ++i)
    if (entry[i] >= 0 && entry[i] < before) named[static_cast<size_t>(entry[i])] = true;
  std::vector<int64_t> blocks;
  for (int64_t block = 0; block < before; ++block)
    if (named[static_cast<size_t>(block)]) blocks.push_back(block);
  return blocks;
}

// Blocks of a row that a rank has chosen, a bit each, as they travel.
class ChosenBlocks {
 public:
  ChosenBlocks(const SequenceLayout& layout, int64_t block_size)
      : bounds_(layout.cu_seqlens()),
        first_blocks_(layout.blocks(block_size).cu_seqlens()),
        bytes_(ceil_div(first_blocks_.back(), 8)) {}

  int64_t bytes() const { return bytes_; }

  // Where a block of the document that begins at a token stands in the row.
  int64_t bit(int64_t document, int64_t block) const {
    const auto at = std::upper_bound(bounds_.begin(), bounds_.end(), document) - bounds_.begin() - 1;
    return first_blocks_[static_cast<size_t>(at)] + block;
  }

 private:
  std::vector<int32_t> bounds_, first_blocks_;  // of documents: tokens, blocks
  int64_t bytes_;
};

}  // namespace

AttendedPieces attend_blocks_in_context(const std::shared_ptr<const ContextGroup>& context,
                                        const Heads& heads, const std::vector<BlockLists>& lists,
                                        int64_t block_size, const BlocksOf& blocks_of,
                                        const OperatorOf& operator_of) {
  const PieceKeys keys(context, [&](int rank, const Piece& piece) {
    return tokens_of_blocks(piece, blocks_of(rank, piece), block_size);
  });
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
  const ChosenBlocks places(context.layout(), block_size);
  const at::Tensor own = at::zeros({places.bytes()}, at::kByte),
                   all = at::empty({places.bytes() * context.layout().ranks()}, at::kByte);
  auto* bits = own.mutable_data_ptr<uint8_t>();
  for (size_t i = 0; i < lists.size(); ++i) {
    const Piece& piece = context.pieces()[i];
    if (!piece.continued()) continue;
    for (const int64_t block : blocks_before(piece, lists[i])) {
      const int64_t bit = places.bit(piece.history_begin, block);
      bits[bit / 8] = static_cast<uint8_t>(bits[bit / 8] | 1U << bit % 8);
    }
  }
  context.ranks().all_gather(all, own, "chosen blocks").wait();
  return [places, all, block_size](int rank, const Piece& piece) {
    const auto* of_rank = all.const_data_ptr<uint8_t>() + rank * places.bytes();
    std::vector<int64_t> blocks;
    for (int64_t block = 0; block < (piece.begin - piece.history_begin) / block_size; ++block)
      if (const int64_t bit = places.bit(piece.history_begin, block); of_rank[bit / 8] >> bit % 8 & 1)
        blocks.push_back(block);
    return blocks;
  };
}

}  // namespace longreach
