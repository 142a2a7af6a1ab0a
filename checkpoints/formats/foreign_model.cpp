#include "checkpoints/formats/foreign_model.h"

#include <filesystem>

#include "checkpoints/formats/gguf/gguf_model.h"
#include "checkpoints/formats/hugging_face.h"
#include "core/error.h"

namespace longreach {

const std::vector<std::string>& tokenizer_file_names() {
  static const std::vector<std::string> names{"tokenizer.json",         "tokenizer.model",
                                              "tokenizer_config.json",  "special_tokens_map.json",
                                              "generation_config.json", "chat_template.jinja"};
  return names;
}

bool is_foreign_model(const std::string& path) { return is_hugging_face_model(path) || is_gguf_file(path); }

ForeignModel open_foreign_model(const std::string& path, const std::set<std::string>& ignored) {
  check<CheckpointError>(is_foreign_model(path), one_line(path),
                         ": is no model; expected a folder with config.json and model.safetensors (or "
                         "model.safetensors.index.json), or a GGUF file");
  return is_gguf_file(path) ? open_gguf_model(path, ignored) : open_hugging_face_model(path, ignored);
}

}  // namespace longreach
