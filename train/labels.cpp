#include "train/labels.h"

#include <algorithm>
#include <vector>

#include "core/error.h"

namespace longreach {
namespace {

constexpr int64_t kPiece = int64_t{1} << 20;  // tokens of a mask that are read at once

// The first token of a document (of the source, where documents are not kept apart) has nothing before it to
// be predicted from, wanted or not.
bool has_label(const data::TokenSource& source, bool varlen) {
  const std::vector<int64_t>& first_tokens = source.document_offsets();
  const int64_t tokens = source.num_tokens();
  auto first = first_tokens.begin();
  std::vector<uint8_t> mask;
  for (int64_t at = 0; at < tokens; at += kPiece) {
    mask.resize(static_cast<size_t>(std::min(kPiece, tokens - at)));
    source.read_loss_mask(at, mask);
    for (; first != first_tokens.end() && *first < at + static_cast<int64_t>(mask.size()); ++first)
      if (varlen || *first == 0) mask[static_cast<size_t>(*first - at)] = 0;
    if (std::any_of(mask.begin(), mask.end(), [](uint8_t wanted) { return wanted != 0; })) return true;
  }
  return false;
}

}  // namespace

std::string where_labels_come_from(const data::Corpus& corpus, int64_t seq_len) {
  const data::CorpusSize size = data::size_of(corpus.train);
  return text(
      "loss is taken on completions, on messages of the role `assistant` and on plain text; a row holds "
      "training.seq_len = ",
      seq_len, " tokens, the longest of ", size.documents, " documents ", size.longest);
}

void expect_labels(const data::Corpus& corpus, const data::LoaderOptions& options) {
  for (const auto& source : corpus.train)
    if (has_label(*source, options.varlen)) return;
  std::vector<std::string> names;
  for (const auto& source : corpus.train) names.push_back(source->name());
  throw DataError(
      text("data.train: no token of ", join(names),
           " carries a label, there is nothing to learn: ", where_labels_come_from(corpus, options.seq_len)));
}

}  // namespace longreach
