// Which rank owns which tokens of a micro-batch that several ranks share. Integers alone, the same on all
// ranks.
//
// A row of tokens with documents' bounds is cut into spans. A span begins where a document does, or a
// multiple of `grain` tokens after: the operators' tiles and blocks are never cut. Spans may differ in
// length; a rank may own several, or none. Documents follow each other, so at most one enters a span from the
// left: a span is at most two pieces, the rest of a document that began earlier, and documents that begin in
// it.
#pragma once
#include <cstdint>
#include <functional>
#include <vector>

namespace longreach {

struct Interval {
  int64_t begin = 0, end = 0;  // tokens of the whole row
  int64_t size() const { return end - begin; }
  bool operator==(const Interval&) const = default;
};

struct Span {
  int64_t begin = 0, end = 0;
  int owner = 0;
};

struct Piece {
  int64_t local = 0, tokens = 0;    // where it lies among the rank's own tokens
  int64_t begin = 0;                // in the whole row
  int64_t history_begin = 0;        // where its document begins, if earlier (continued); else begin (fresh)
  std::vector<int32_t> cu_seqlens;  // fresh: bounds of its documents, from 0; empty documents are left out

  bool continued() const { return history_begin < begin; }
  int64_t before() const { return begin - history_begin; }  // tokens of its document that come earlier
};

// How spans of about equal length are dealt out. none: contiguous. headtail: one from the front with one from
// the back. ptrr: by cost, with as few spans a rank as keep the imbalance small, and borders that move.
enum class Balance { none, headtail, ptrr };

// What the first n tokens of a document cost: 0 for none, not falling.
using Cost = std::function<double(int64_t tokens)>;
// Pairs of a query and a key that causal attention sees.
double causal_pairs(int64_t tokens);

class SequenceLayout {
 public:
  // cu_seqlens: bounds of documents, from 0, not falling. grain, ranks: 1 or more. Throws ShapeError.
  SequenceLayout(std::vector<int32_t> cu_seqlens, int ranks, int64_t grain, Balance balance,
                 const Cost& cost);

  int ranks() const { return ranks_; }
  int64_t total() const { return cu_seqlens_.back(); }
  const std::vector<int32_t>& cu_seqlens() const { return cu_seqlens_; }
  // All that are not empty, in the order of the row.
  const std::vector<Span>& spans() const { return spans_; }

  // Of one rank, in the order of the row, in which its own tokens lie.
  std::vector<Interval> owned(int rank) const;
  std::vector<Piece> pieces(int rank) const;
  int64_t tokens(int rank) const;
  // Which document holds a token: its number (of the row's end: how many there are), and its tokens.
  size_t document_number(int64_t token) const;
  Interval document_of(int64_t token) const;
  int64_t longest_document() const;
  // Cost of the dearest rank over the mean.
  double imbalance(const Cost& cost) const;

  // The same layout counted in rows that stand for stretches of tokens: count(n) of them come of the first n
  // tokens of a document, count(0) = 0, not falling.
  SequenceLayout counted(const std::function<int64_t(int64_t)>& count) const;
  // In blocks of each document, the last one short; size divides the grain.
  SequenceLayout blocks(int64_t size) const;
  // Owners are groups of so many neighbouring ranks; spans of one owner that touch are one.
  SequenceLayout merged(int neighbours) const;

 private:
  SequenceLayout() = default;

  std::vector<int32_t> cu_seqlens_;
  int ranks_ = 1;
  int64_t grain_ = 1;
  std::vector<Span> spans_;
};

}  // namespace longreach
