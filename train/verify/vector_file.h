// A reference-vector file: in.*, param.*, gout.*, out.*, grad.* and metadata (mechanism, case, config,
// layout, source).
#pragma once
#include <ATen/core/Tensor.h>

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoints/safetensors.h"
#include "core/error.h"

namespace longreach::verify {

// A mechanism, or a kind of case, that no runner knows.
struct UnknownCase : UserError {
  using UserError::UserError;
};

class VectorFile {
 public:
  // Throws CheckpointError (not a safetensors file), DataError (no mechanism named, a config that is not
  // JSON).
  explicit VectorFile(const std::string& path);

  const std::string& path() const { return file_.path(); }
  const std::string& mechanism() const { return mechanism_; }
  const nlohmann::json& config() const { return config_; }
  std::string note(const std::string& key) const;  // a metadata entry, "" when absent

  bool contains(const std::string& name) const { return file_.contains(name); }
  at::Tensor tensor(const std::string& name) const { return file_.tensor(name); }
  // The names after `prefix` ("out.") of the tensors that start with it.
  std::vector<std::string> names(std::string_view prefix) const;

  // The axes of a tensor as the layout entry says, such as {"B", "H", "T", "D"}; empty when it does not say.
  // "q,k: B T H K; v: B T H V", {"q,o": "B T H D"} and a bare "B H T D" (for all) are understood.
  std::vector<std::string> axes(const std::string& name) const;
  // Whether heads stand before time.
  bool heads_first(const std::string& name) const;

  // config[key], required and of the right type. Throws UnknownCase naming the key.
  int64_t integer(const char* key) const;
  int64_t integer_or(const char* key, int64_t otherwise) const;  // absent: otherwise
  bool truth_or(const char* key, bool otherwise) const;
  double real(const char* key) const;
  std::string word(const char* key) const;
  std::vector<int64_t> integers(const char* key) const;
  // config["scale"]: a number, "D^-0.5", or absent (`otherwise`).
  double scale(int64_t head_dim, double otherwise) const;
  double scale(int64_t head_dim) const;  // absent: D^-0.5

 private:
  template <class T>
  T get(const char* key, bool valid) const;

  SafetensorsFile file_;
  std::string mechanism_;
  nlohmann::json config_;
  std::map<std::string, std::vector<std::string>> axes_;  // "" for all others
};

}  // namespace longreach::verify
