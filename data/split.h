// Holding out text for validation.
//
// Where every document is a whole file (text files and folders of them, and stores made of those), the last
// `valid_fraction` of every document is held out. Other corpora (JSONL, .bin, stores of them) do the same
// when they have fewer than 1000 documents; with more, the last `valid_fraction` of the documents is held
// out. Fine-tuning corpora (with a loss mask) always hold out whole documents, so that no conversation is
// cut. What is held out is never trained on.
#pragma once
#include <memory>
#include <utility>
#include <vector>

#include "data/corpora/token_source.h"

namespace longreach::data {

struct Split {
  std::shared_ptr<const TokenSource> train;
  std::shared_ptr<const TokenSource> valid;  // null when nothing is held out
};

// Throws DataError naming the source when nothing would be left on one of the two sides.
Split hold_out(std::shared_ptr<const TokenSource> source, double valid_fraction, bool documents_are_files);

// Ranges [begin, end) of `source`, in order, each a document of the new source.
std::shared_ptr<const TokenSource> slice(std::shared_ptr<const TokenSource> source,
                                         const std::vector<std::pair<int64_t, int64_t>>& ranges);

}  // namespace longreach::data
