// The choice of blocks from scores: forced blocks, then the best candidates, ties to the lowest block; and
// the writing of lists. One task a run of rows.
#include <algorithm>
#include <atomic>
#include <vector>

#include "layers/ops/cpu/parallel.h"
#include "layers/ops/selection/cpu/choose_row.h"
#include "layers/ops/selection/kernels.h"

namespace longreach::selection {
namespace {

template <class Score>
Lists choose(const Choice<Score>& choice) {
  constexpr int64_t kRowsAPiece = 64;
  const int64_t rows = choice.lists * choice.row_count;
  Lists lists;
  lists.pieces.resize(static_cast<size_t>((rows + kRowsAPiece - 1) / kRowsAPiece));
  lists.counts.resize(static_cast<size_t>(rows));
  std::atomic<bool> nan{false};
  parallel_for(0, static_cast<int64_t>(lists.pieces.size()), 1, [&](int64_t begin, int64_t end) {
    std::vector<Score> values;
    for (int64_t p = begin; p < end; ++p) {
      const int64_t first = p * kRowsAPiece, last = std::min(first + kRowsAPiece, rows);
      Piece& piece = lists.pieces[p];
      piece = {first, last - first, {}};
      for (int64_t i = first; i < last; ++i) {
        const int64_t count = choose_row(choice.limits, choice.rows[i % choice.row_count],
                                         choice.scores + i * choice.blocks, values, piece.blocks);
        if (count < 0) nan = true;
        lists.counts[i] = static_cast<int32_t>(std::max<int64_t>(count, 0));
      }
    }
  });
  lists.nan = nan;
  return lists;
}

}  // namespace

Lists choose_cpu(const Choice<float>& choice) { return choose(choice); }
Lists choose_cpu(const Choice<double>& choice) { return choose(choice); }

int64_t Lists::longest() const {
  return counts.empty() ? 0 : *std::max_element(counts.begin(), counts.end());
}

void write_cpu(const Lists& lists, int64_t size, int32_t* indices) {
  parallel_for(0, static_cast<int64_t>(lists.pieces.size()), 16, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      const Piece& piece = lists.pieces[p];
      const int32_t* from = piece.blocks.data();
      for (int64_t row = piece.first; row < piece.first + piece.rows; ++row) {
        int32_t* to = indices + row * size;
        std::fill(std::copy(from, from + lists.counts[row], to), to + size, -1);
        from += lists.counts[row];
      }
    }
  });
}

}  // namespace longreach::selection
