#include "train/model_origin.h"

#include <algorithm>
#include <filesystem>
#include <limits>

#include "checkpoints/checked_file.h"
#include "checkpoints/formats/foreign_model.h"
#include "core/naming.h"
#include "core/temporary_folder.h"
#include "train/warn.h"

namespace longreach {
namespace {

namespace fs = std::filesystem;

constexpr const char* kConfig = "config.toml";
constexpr const char* kTokenizer = "tokenizer/";
constexpr int64_t kLargestConfig = 16 << 20;

// The folder that holds step-* folders, for a run folder or a checkpoint folder.
std::string checkpoint_root_of(const std::string& path) {
  if (!list_checkpoints(path).empty()) return path;
  const std::string config = path + "/" + kConfig;
  if (fs::exists(config))
    return path + "/" + parse_saved_config(read_text_file(config, kLargestConfig), config).checkpoint.folder;
  return path + "/checkpoint";
}

void expect_folder(const std::string& path) {
  check<CheckpointError>(fs::is_directory(path), path,
                         ": no such folder; expected a run, a checkpoint folder, a step folder, a Hugging "
                         "Face folder or a GGUF file");
}

CheckpointReader open_checkpoint(const std::string& path) {
  expect_folder(path);
  if (fs::exists(path + "/manifest.json")) {
    verify_checkpoint(path, false);
    return CheckpointReader(path, false);
  }
  auto newest = open_latest(checkpoint_root_of(path), -1, warn, std::numeric_limits<int64_t>::max(), false);
  check<CheckpointError>(newest.has_value(), path, ": holds no checkpoint");
  return std::move(*newest);
}

// Of its [model]; everything else is what a run takes by itself.
RunConfig config_of(const ForeignModel& model) {
  RunConfig config;
  config.job.dump_folder.clear();
  config.model = model.config;
  naming<ConfigError>(model.path, [&] { config.model.resolve(0); });
  config.training.seq_len = std::min(config.training.seq_len, config.model.max_position_embeddings);
  const bool has =
      model.tokenizer.count("tokenizer.json") > 0 || model.tokenizer.count("tokenizer.model") > 0;
  config.data.tokenizer = has ? model.path : "none";
  return config;
}

bool holds_tokenizer(const std::string& folder) {
  return fs::is_directory(folder) &&
         (fs::exists(folder + "/tokenizer.json") || fs::exists(folder + "/tokenizer.model"));
}

ModelOrigin origin_of(const ForeignModel& model) {
  ModelOrigin origin{.path = model.path, .tensors = model.tensors};
  for (const auto& [name, contents] : model.tokenizer) origin.texts[kTokenizer + name] = contents;
  RunConfig config = config_of(model);
  origin.texts[kConfig] = to_toml(fields_of(config));
  return origin;
}

}  // namespace

RunConfig ModelOrigin::config() const {
  const auto written = texts.find(kConfig);
  check<CheckpointError>(written != texts.end(), path, ": the checkpoint holds no config.toml");
  return parse_saved_config(written->second, path + "/" + kConfig);
}

ModelOrigin open_origin(const std::string& path, const std::set<std::string>& ignored) {
  if (is_foreign_model(path)) return origin_of(open_foreign_model(path, ignored));
  const auto checkpoint = std::make_shared<const CheckpointReader>(open_checkpoint(path));
  return {.path = checkpoint->path(),
          .step = checkpoint->step(),
          .tensors = {checkpoint, &checkpoint->model()},
          .texts = checkpoint->texts()};
}

std::optional<RunConfig> saved_config(const std::string& path) {
  if (is_foreign_model(path)) return config_of(open_foreign_model(path));
  expect_folder(path);
  std::vector<std::pair<int64_t, std::string>> steps{{0, path}};
  if (!fs::exists(path + "/manifest.json")) steps = list_checkpoints(checkpoint_root_of(path));
  std::string damage;
  for (auto step = steps.rbegin(); step != steps.rend(); ++step) {
    try {
      const auto written = load_text(step->second, kConfig);
      if (!written) return std::nullopt;
      RunConfig config = parse_saved_config(*written, step->second + "/" + kConfig);
      if (fs::is_directory(step->second + "/tokenizer")) config.data.tokenizer = step->second + "/tokenizer";
      return config;
    } catch (const CheckpointError& error) {
      damage = error.what();
    }
  }
  check<CheckpointError>(damage.empty(), damage);
  return std::nullopt;
}

std::shared_ptr<const data::Tokenizer> tokenizer_of(const ModelOrigin& origin) {
  for (const std::string& folder : {origin.path + "/tokenizer", origin.path})
    if (holds_tokenizer(folder)) return data::load_tokenizer(folder);
  const TemporaryFolder folder;
  for (const auto& [name, contents] : origin.texts)
    if (name.starts_with(kTokenizer)) folder.write(name, contents);
  if (holds_tokenizer(folder.path("tokenizer"))) return data::load_tokenizer(folder.path("tokenizer"));
  const std::string spec = origin.config().data.tokenizer;
  return spec == "none" ? nullptr : std::shared_ptr(data::load_tokenizer(spec));
}

}  // namespace longreach
