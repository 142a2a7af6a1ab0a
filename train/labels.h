// Whether training data says what there is to learn.
#pragma once
#include <string>

#include "data/loader.h"

namespace longreach {

// Throws DataError when no token of the training sources carries a label.
void expect_labels(const data::Corpus& corpus, const data::LoaderOptions& options);

// What a row without labels comes from: ", loss is taken on ...; rows hold ..., the longest document ...".
std::string where_labels_come_from(const data::Corpus& corpus, int64_t seq_len);

}  // namespace longreach
