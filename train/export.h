// Writing a model, or a part of one, in a format of other programs: the verb `export` and [export] of a run.
#pragma once
#include <string>
#include <vector>

#include "train/foreign_export.h"

namespace longreach {

// "gates", "peft", "merged", "native" and foreign_formats(); `longreach export --help` says what each is.
const std::vector<std::string>& export_formats();

struct ExportOptions {
  std::string base;   // of peft: what the adapters belong to; empty: the run's checkpoint.initial_load_path
  std::string dtype;  // of foreign formats: what weights are written as; empty: the format's default
  std::string family = kAnyFamily;  // of hf: one of hugging_face_targets()
};

// Writes the model of a run, checkpoint folder or step folder to `folder`; returns the file or folder to name
// to the user. Errors: write_gates, write_peft, export_merged, export_native, write_foreign; ConfigError for
// an option that the format does not take.
std::string export_model(const std::string& checkpoint, const std::string& folder, const std::string& format,
                         const ExportOptions& options = {});

// Whether `folder` holds a whole export in that format: files that are there, have their sizes and can be
// read.
bool is_exported(const std::string& folder, const std::string& format);

// The exports of a finished run, newest checkpoint `checkpoint`, in folders of their own under
// `run_folder`/export. Whole ones stay as they are, whatever `foreign` asks; one that is not whole
// (interrupted, or a file lost) is set aside as FOLDER.incomplete and made anew. Prints where each lies.
void export_formats_of(const std::string& run_folder, const std::string& checkpoint,
                       const std::vector<std::string>& formats, const ForeignExport& foreign);

}  // namespace longreach
