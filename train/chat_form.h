// The chat template that a model came with, as the form of a prompt.
#pragma once
#include <optional>

#include "data/synthetic/sample.h"
#include "train/saved_model.h"

namespace longreach {

// The request as a user's only turn, and the beginning as that of the reply. Nothing where the model came
// without a template. The form throws DataError naming the folder for a template that is not understood.
std::optional<data::PromptForm> chat_form(const SavedModel& saved);

}  // namespace longreach
