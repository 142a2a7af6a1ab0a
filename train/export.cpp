#include "train/export.h"

#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>

#include "checkpoints/checkpoint.h"
#include "checkpoints/formats/peft.h"
#include "checkpoints/manifest.h"
#include "checkpoints/safetensors.h"
#include "train/gates.h"
#include "train/merged_export.h"
#include "train/saved_model.h"

namespace longreach {
namespace {

namespace fs = std::filesystem;

void expect_json(const std::string& path) {
  constexpr int64_t kLimit = int64_t{1} << 26;
  check<CheckpointError>(nlohmann::json::accept(read_text_file(path, kLimit)), path, ": is no JSON");
}

void expect_checkpoint(const std::string& folder) {
  const auto steps = list_checkpoints(folder);
  check<CheckpointError>(!steps.empty(), folder, ": holds no checkpoint");
  for (const ManifestFile& file : read_manifest(steps.back().second).files) {
    std::error_code error;
    const std::string path = steps.back().second + "/" + file.name;
    check<CheckpointError>(fs::file_size(path, error) == static_cast<uintmax_t>(file.sum.size) && !error,
                           path, ": is not whole");
  }
}

// Out of the way, under a name that is free.
fs::path set_aside(const fs::path& folder) {
  fs::path aside = folder.string() + ".incomplete";
  for (int count = 2; fs::exists(aside); ++count) aside = text(folder.string(), ".incomplete-", count);
  fs::rename(folder, aside);
  return aside;
}

}  // namespace

const std::vector<std::string>& export_formats() {
  static const std::vector<std::string> formats{"gates", "peft", "merged"};
  return formats;
}

std::string export_model(const std::string& checkpoint, const std::string& folder, const std::string& format,
                         const std::string& base) {
  if (format == "merged") {
    write_merged(checkpoint, folder);
    return folder;
  }
  const SavedModel saved = load_saved_model(checkpoint);
  if (format == "gates") return write_gates(*saved.model, saved.path, folder);
  write_peft(*saved.model, model_tensors(*saved.model), saved.config.adapter,
             base.empty() ? saved.config.checkpoint.initial_load_path : base, folder);
  return folder + "/adapter_model.safetensors";
}

bool is_exported(const std::string& folder, const std::string& format) {
  try {
    if (format == "merged") {
      expect_checkpoint(folder);
    } else if (format == "gates") {
      expect_gates(folder);
      expect_json(folder + "/config.json");
    } else {
      const SafetensorsFile tensors(folder + "/adapter_model.safetensors");
      expect_json(folder + "/adapter_config.json");
    }
    return true;
  } catch (const CheckpointError&) {
    return false;
  }
}

void export_formats_of(const std::string& run_folder, const std::string& checkpoint,
                       const std::vector<std::string>& formats) {
  if (checkpoint.empty()) return;
  for (const std::string& format : formats) {
    const fs::path folder = fs::path(run_folder) / "export" / fs::path(checkpoint).filename() / format;
    if (is_exported(folder, format)) continue;
    if (fs::exists(folder) && !fs::is_empty(folder))
      std::cout << "export     " << folder.string() << " was not whole; it lies in "
                << set_aside(folder).string() << "\n";
    std::cout << "export     " << export_model(checkpoint, folder, format) << "\n";
  }
}

}  // namespace longreach
