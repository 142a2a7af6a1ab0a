// Whole models in formats of other programs, read back before they are handed over.
#pragma once
#include <string>
#include <vector>

#include "checkpoints/formats/hugging_face_family.h"

namespace longreach {

// "hf", "gguf": those of export_formats() that write_foreign writes.
const std::vector<std::string>& foreign_formats();
bool is_foreign_format(const std::string& format);
// Throws ConfigError when weights are not written as that in the format.
void expect_foreign_dtype(const std::string& format, const std::string& dtype);
// What open_foreign_model opens in a folder that write_foreign has written.
std::string foreign_file(const std::string& folder, const std::string& format);

struct ForeignExport {
  std::string dtype;                // as --dtype has it; empty: the format's default
  std::string family = kAnyFamily;  // of hf: as HuggingFaceExport::family
};

// Writes the model of a run, checkpoint folder or step folder to a new folder, with its adapters in its
// weights. What was written is read back, and the logits of 64 tokens are compared with those of the model
// whose weights are rounded alike; prints the largest error.
// Throws ConfigError naming the key that the format cannot say, CheckpointError when a weight is not finite
// or the folder exists or cannot be written, Error when the logits differ. The folder appears whole
// or not at all.
void write_foreign(const std::string& checkpoint, const std::string& folder, const std::string& format,
                   const ForeignExport& options = {});

}  // namespace longreach
