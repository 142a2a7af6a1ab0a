// Reading Hugging Face's tokenizer.json.
#pragma once
#include <memory>
#include <string>

#include "data/tokenizers/tokenizer.h"

namespace longreach::data {

// What is read: a `model` of type BPE without dropout, prefix and suffix; the pre-tokenizers ByteLevel,
// Split, Digits, Punctuation, WhitespaceSplit, Metaspace and Sequence; the normalizers Prepend, Replace and
// Sequence; the decoders ByteLevel, Metaspace, Replace, ByteFallback, Fuse, Strip and Sequence;
// `added_tokens`. The `post_processor` adds tokens around a text and is not applied. The beginning and the
// end of a text come from tokenizer_config.json beside the file, or from the usual names. Throws DataError
// naming the file and what in it is not understood.
std::unique_ptr<Tokenizer> load_tokenizer_json(const std::string& path);

}  // namespace longreach::data
