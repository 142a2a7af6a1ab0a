#include "checkpoints/formats/hugging_face.h"

#include <ATen/ops/equal.h>

#include <filesystem>
#include <optional>
#include <regex>

#include "checkpoints/checked_file.h"
#include "checkpoints/formats/hugging_face_config.h"
#include "checkpoints/formats/hugging_face_json.h"
#include "checkpoints/formats/hugging_face_names.h"
#include "checkpoints/formats/joined_tensors.h"
#include "checkpoints/formats/renamed_tensors.h"
#include "checkpoints/formats/torch_file.h"
#include "checkpoints/sharded_tensors.h"
#include "core/error.h"

namespace longreach {
namespace {

namespace fs = std::filesystem;

constexpr const char* kWeights = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";
constexpr const char* kPickled = "pytorch_model.bin";
constexpr const char* kPickledIndex = "pytorch_model.bin.index.json";

// The files of an index, each once.
std::vector<std::string> shards_of(const std::string& folder, const std::string& index,
                                   const nlohmann::json& map) {
  std::set<std::string> files;
  for (const auto& item : map.items()) {
    const bool plain =
        item.value().is_string() && item.value().get<std::string>().find('/') == std::string::npos;
    check<CheckpointError>(plain, one_line(text(index, ": weight_map: `", item.key(),
                                                "`: expected the name of a file in this folder")));
    files.insert(item.value().get<std::string>());
  }
  check<CheckpointError>(!files.empty(), index, ": weight_map: expected names of files");
  std::vector<std::string> paths;
  for (const std::string& file : files) paths.push_back(folder + "/" + file);
  return paths;
}

// That the files hold what the index says, and nothing else.
void expect_indexed(const TensorSource& tensors, const std::string& index, const nlohmann::json& map) {
  for (const auto& item : map.items())
    check<CheckpointError>(tensors.contains(item.key()),
                           one_line(text(index, ": `", item.key(), "`: ", item.value().get<std::string>(),
                                         " does not hold it")));
  for (const std::string& name : tensors.names())
    check<CheckpointError>(map.contains(name),
                           one_line(text(index, ": weight_map has no `", name, "`, which a file holds")));
}

std::shared_ptr<const TensorSource> open_indexed(const std::string& folder, const std::string& name) {
  const std::string index = folder + "/" + name;
  const nlohmann::json json = hugging_face_json(index);
  const auto map = json.find("weight_map");
  check<CheckpointError>(map != json.end() && map->is_object(), index, ": `weight_map`: expected a table");
  const std::vector<std::string> shards = shards_of(folder, index, *map);
  std::shared_ptr<const TensorSource> tensors;
  if (name == kPickledIndex)
    tensors = std::make_shared<JoinedTensors>(shards);
  else
    tensors = std::make_shared<ShardedTensors>(shards, ShardedTensors::Parts::kWhole);
  expect_indexed(*tensors, index, *map);
  return tensors;
}

std::shared_ptr<const TensorSource> open_weights(const std::string& folder) {
  const auto has = [&](const char* name) { return fs::exists(folder + "/" + name); };
  if (has(kIndex)) return open_indexed(folder, kIndex);
  if (has(kWeights))
    return std::make_shared<ShardedTensors>(std::vector{folder + "/" + kWeights},
                                            ShardedTensors::Parts::kWhole);
  if (has(kPickledIndex)) return open_indexed(folder, kPickledIndex);
  return std::make_shared<TorchFile>(folder + "/" + kPickled);
}

// Names that are understood are short; expressions see no others.
constexpr size_t kLongestName = 200;

// MiniMax's expert as transformers holds it in memory: [1, 2 I, C] and [1, C, I].
bool add_packed_expert(const std::string& name, const std::string& theirs, const TensorSource& source,
                       RenamedTensors& tensors) {
  static const std::regex packed(R"((model\.layers\.\d+\.mlp)\.experts\.(gate_up_proj|down_proj))");
  std::smatch found;
  if (name.size() > kLongestName || !std::regex_match(name, found, packed)) return false;
  const std::vector<int64_t>& shape = source.shape(theirs);
  const bool down = found[2] == "down_proj";
  check<CheckpointError>(shape.size() == 3 && shape[0] == 1 && (down || shape[1] % 2 == 0), "`",
                         one_line(theirs, 200), "`: shape ", at::IntArrayRef(shape),
                         ", expected those of one expert");
  const std::string mlp = found[1].str();
  if (down) {
    tensors.add(mlp + ".down_proj.weight",
                {theirs, {shape[1], shape[2]}, [](const at::Tensor& x) { return x[0]; }});
    return true;
  }
  const int64_t inner = shape[1] / 2;
  for (const bool up : {false, true})
    tensors.add(mlp + (up ? ".up_proj.weight" : ".gate_proj.weight"),
                {theirs, {inner, shape[2]}, [up, inner](const at::Tensor& x) {
                   return x[0].narrow(0, up ? inner : 0, inner);
                 }});
  return true;
}

// A tied output layer may be there by itself; it must be the embedding then.
void expect_tied(const TensorSource& tensors, const std::string& head, const std::string& embedding,
                 const std::string& folder) {
  check<CheckpointError>(tensors.contains(embedding) && tensors.shape(head) == tensors.shape(embedding) &&
                             at::equal(tensors.tensor(head), tensors.tensor(embedding)),
                         one_line(folder), ": `lm_head.weight` is not `", embedding,
                         "`, which config.json says (tie_word_embeddings = true)");
}

std::shared_ptr<const TensorSource> under_our_names(std::shared_ptr<const TensorSource> weights,
                                                    const ModelConfig& config, const std::string& folder) {
  const bool bare = weights->contains("embed_tokens.weight");
  const std::string head = "lm_head.weight";
  const std::string embedding = bare                                           ? "embed_tokens.weight"
                                : weights->contains("model.embeddings.weight") ? "model.embeddings.weight"
                                                                               : "model.embed_tokens.weight";
  auto tensors = std::make_shared<RenamedTensors>(weights);
  for (const std::string& theirs : weights->names()) {
    const std::string name = bare && theirs != head ? "model." + theirs : theirs;
    if (follows_from_config(name)) continue;
    if (name == head && config.tie_word_embeddings) {
      expect_tied(*weights, theirs, embedding, folder);
      continue;
    }
    if (add_packed_expert(name, theirs, *weights, *tensors)) continue;
    tensors->add(our_name(name), theirs);
  }
  return tensors;
}

std::map<std::string, std::string> tokenizer_files(const std::string& folder) {
  constexpr int64_t kLargest = 256 << 20;
  std::map<std::string, std::string> files;
  for (const std::string& name : tokenizer_file_names()) {
    const std::string path = folder + "/" + name;
    std::error_code error;
    if (fs::is_regular_file(path, error)) files[name] = read_text_file(path, kLargest);
  }
  return files;
}

}  // namespace

bool is_hugging_face_model(const std::string& folder) {
  const auto has = [&](const char* name) { return fs::exists(fs::path(folder) / name); };
  return has("config.json") && (has(kWeights) || has(kIndex) || has(kPickled) || has(kPickledIndex));
}

ForeignModel open_hugging_face_model(const std::string& folder, const std::set<std::string>& ignored) {
  ForeignModel model{
      .path = folder, .format = "Hugging Face", .config = hugging_face_config(folder, ignored)};
  model.tensors = under_our_names(open_weights(folder), model.config, folder);
  model.tokenizer = tokenizer_files(folder);
  return model;
}

}  // namespace longreach
