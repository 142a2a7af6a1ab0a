// manifest.json: what a checkpoint folder holds, with sizes and checksums, itself included.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoints/checked_file.h"

namespace longreach {

struct ManifestFile {
  std::string name;  // relative to the checkpoint, with forward slashes
  FileSum sum;
};

struct Manifest {
  int64_t version = 1;  // of the format; 2: tensors are runs of flattened ones, written by several ranks
  int64_t step = 0;
  std::vector<ManifestFile> files;
};

inline constexpr const char* kManifestName = "manifest.json";
// How names of files of tensors begin; a rank's number and .safetensors follow.
inline constexpr std::string_view kModelPrefix = "model-", kOptimizerPrefix = "optimizer-";

// The text of manifest.json. Its last key is the XXH3-64 of the text without that key.
std::string manifest_text(const Manifest& manifest);

// Reads folder/manifest.json; refuses any byte that manifest_text would not have written, names that leave
// the folder, and versions of the format that this program does not know. Throws CheckpointError.
Manifest read_manifest(const std::string& folder);

// A relative path of plain parts: no "..", no empty part, no leading slash, no control characters.
bool is_safe_name(const std::string& name);

}  // namespace longreach
