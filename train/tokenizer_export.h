// The tokenizer of a saved model as transformers reads it.
#pragma once
#include <map>
#include <string>

#include "train/saved_model.h"

namespace longreach {

// Its files by name: those that the checkpoint keeps, as they are; tokenizer.json of a byte-level vocabulary
// for bytes; and tokenizer_config.json where there is none. A chat template is added when the vocabulary has
// the markers of data.chat_template and the files have no template of their own. Empty without a tokenizer.
std::map<std::string, std::string> tokenizer_export(const SavedModel& saved);

// Whether transformers begins every text with the tokenizer's bos, by the files that came with the model.
bool begins_with_bos(const SavedModel& saved);

}  // namespace longreach
