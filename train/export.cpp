#include "train/export.h"

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>

#include "checkpoints/checkpoint.h"
#include "checkpoints/formats/foreign_model.h"
#include "checkpoints/formats/peft.h"
#include "checkpoints/manifest.h"
#include "checkpoints/safetensors.h"
#include "train/gates.h"
#include "train/native_export.h"
#include "train/saved_model.h"

namespace longreach {
namespace {

namespace fs = std::filesystem;

void expect_json(const std::string& path) {
  constexpr int64_t kLimit = int64_t{1} << 26;
  check<CheckpointError>(nlohmann::json::accept(read_text_file(path, kLimit)), path, ": is no JSON");
}

// A checkpoint of ours.
bool is_checkpoint_format(const std::string& format) { return format == "merged" || format == "native"; }

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
  static const std::vector<std::string> formats = [] {
    std::vector<std::string> all{"gates", "peft", "merged", "native"};
    all.insert(all.end(), foreign_formats().begin(), foreign_formats().end());
    return all;
  }();
  return formats;
}

std::string export_model(const std::string& checkpoint, const std::string& folder, const std::string& format,
                         const ExportOptions& options) {
  const bool foreign = is_foreign_format(format);
  check<ConfigError>(foreign || options.dtype.empty(), "--dtype: `", format,
                     "` is written as it is; expected --format ", join(foreign_formats()));
  check<ConfigError>(format == "hf" || options.family == kAnyFamily, "--family: goes with --format hf");
  check<ConfigError>(format == "peft" || options.base.empty(), "--base: goes with --format peft");
  if (foreign) {
    write_foreign(checkpoint, folder, format, {.dtype = options.dtype, .family = options.family});
    return folder;
  }
  if (is_checkpoint_format(format)) {
    format == "merged" ? export_merged(checkpoint, folder) : export_native(checkpoint, folder);
    return folder;
  }
  const SavedModel saved = load_saved_model(checkpoint);
  if (format == "gates") return write_gates(*saved.model, saved.path, folder);
  write_peft(*saved.model, model_tensors(*saved.model), saved.config.adapter,
             options.base.empty() ? saved.config.checkpoint.initial_load_path : options.base, folder);
  return folder + "/adapter_model.safetensors";
}

bool is_exported(const std::string& folder, const std::string& format) {
  try {
    if (is_foreign_format(format)) {
      open_foreign_model(foreign_file(folder, format));
    } else if (is_checkpoint_format(format)) {
      expect_checkpoint(folder);
    } else if (format == "gates") {
      expect_gates(folder);
      expect_json(folder + "/config.json");
    } else {
      const SafetensorsFile tensors(folder + "/adapter_model.safetensors");
      expect_json(folder + "/adapter_config.json");
    }
    return true;
  } catch (const UserError&) {
    return false;
  }
}

void export_formats_of(const std::string& run_folder, const std::string& checkpoint,
                       const std::vector<std::string>& formats, const ForeignExport& foreign) {
  if (checkpoint.empty()) return;
  for (const std::string& format : formats) {
    const fs::path folder = fs::path(run_folder) / "export" / fs::path(checkpoint).filename() / format;
    if (is_exported(folder, format)) {
      std::cout << "export     " << folder.string() << " is there already\n";
      continue;
    }
    if (fs::exists(folder) && !fs::is_empty(folder))
      std::cout << "export     " << folder.string() << " was not whole; it lies in "
                << set_aside(folder).string() << "\n";
    const ExportOptions options{.dtype = is_foreign_format(format) ? foreign.dtype : "",
                                .family = format == "hf" ? foreign.family : kAnyFamily};
    const std::string written = export_model(checkpoint, folder, format, options);
    std::cout << "export     " << written << "\n";
  }
}

}  // namespace longreach
