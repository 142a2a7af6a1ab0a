// Conversations out of the sections of documents, as lines of JSON that fine-tuning reads.
#pragma once
#include <cstdint>
#include <string>

namespace longreach::data {

struct ConversationsOptions {
  std::string source = "linux-doc";  // a folder of documents, or a corpus by its name
  int64_t samples = 500, skip = 0;   // of all, in an order that the seed draws
  uint64_t seed = 0;
};

// Writes a new file, whole or not at all; returns how many conversations there are. The same options write
// the same file. Throws DataError when it exists, cannot be written, or when there are not so many.
int64_t write_conversations(const std::string& path, const ConversationsOptions& options);

}  // namespace longreach::data
