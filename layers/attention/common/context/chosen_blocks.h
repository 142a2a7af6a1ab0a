// Block attention of one rank's pieces: of the keys before a piece, the blocks that somebody on the rank
// reads are fetched, and lists of blocks are renumbered to what has come.
#pragma once
#include <memory>
#include <optional>
#include <vector>

#include "layers/attention/common/context/attend_pieces.h"
#include "layers/ops/block_attention/block_attention.h"

namespace longreach {

// Blocks of a continued piece's document, all before the piece.
using BlocksOf = std::function<std::vector<int64_t>(int rank, const Piece& piece)>;

// Their tokens.
HistoryOf history_of_blocks(const BlocksOf& blocks_of, int64_t block_size);

// The operator of lists whose blocks count among the keys that it gets.
using OperatorOf = std::function<std::shared_ptr<const SoftmaxOperator>(const BlockLists& lists)>;

// lists: of each own piece, as on one rank: blocks of `block_size` keys count from the start of the document.
// A continued piece has one document and no bounds. blocks_of: what the lists of every rank's pieces name.
AttendedPieces attend_blocks_in_context(const std::shared_ptr<const ContextGroup>& context,
                                        const Heads& heads, const std::vector<BlockLists>& lists,
                                        int64_t block_size, const BlocksOf& blocks_of,
                                        const OperatorOf& operator_of);

// The fused operator or its reference.
OperatorOf block_operators(Implementation implementation, const BlockAttentionOptions& options = {});

// Tells all ranks which blocks before their pieces the lists of each name: one bit a block of the row, and
// notes how many they are. Called by all ranks.
BlocksOf share_chosen_blocks(const ContextGroup& context, const std::vector<BlockLists>& lists,
                             int64_t block_size);

}  // namespace longreach
