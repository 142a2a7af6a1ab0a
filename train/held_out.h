// The text that a saved model is judged by.
#pragma once
#include <string>
#include <vector>

#include "data/loader.h"
#include "train/saved_model.h"

namespace longreach {

// `files`, or when empty the held-out split of the model's own run. Stores of text are kept with the run,
// where its folder lies now; where that cannot be written, new ones last as long as the corpus. Throws
// DataError.
data::Corpus held_out_corpus(const SavedModel& saved, const std::vector<std::string>& files);

}  // namespace longreach
