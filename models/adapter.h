// [adapter]: low-rank adapters on the projections of a frozen model (LoRA, arXiv 2106.09685), with embeddings
// and norms training beside them where asked (LoRA+ of LongLoRA, arXiv 2309.12307). Keys and names are those
// of PEFT.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "core/fields.h"
#include "models/transformer.h"

namespace longreach {

struct AdapterConfig {
  std::string type = "none";
  int64_t r = 8;
  int64_t lora_alpha = 16;
  double lora_dropout = 0.0;
  std::vector<std::string> target_modules = {"q_proj", "k_proj", "v_proj", "o_proj"};
  std::vector<std::string> modules_to_save;
  std::string base_dtype = "float32";
  void fields(FieldVisitor& visit);

  bool present() const { return type != "none"; }
  // Throws ConfigError that begins with `what`, whose config this is, when it is not.
  void expect_present(std::string_view what) const;
};

// Adds an adapter to every projection that config names, and freezes every other parameter but those of
// modules_to_save. Does nothing for type "none". A projection is a Linear that stands directly in a layer's
// self_attn or mlp. A is drawn from `seed` and the projection's name. Throws ConfigError, before anything is
// changed, naming the key and what there is: a target that no layer has, a module to save that is not there
// or is a target as well.
void add_adapters(Transformer& model, const AdapterConfig& config, uint64_t seed);

// Dropout masks are drawn anew for this pass over the model, from the seed of add_adapters and `pass` alone.
void begin_pass(Transformer& model, uint64_t pass);

// Whether a parameter belongs to an adapter (....q_proj.lora_A.weight).
bool is_adapter_parameter(std::string_view name);
// Whether a parameter of the base model is one of modules_to_save.
bool is_saved_parameter(const AdapterConfig& config, std::string_view name);

// The weights that adapters belong to, by name, with the adapters in them: the model without adapters that
// computes the same.
std::map<std::string, at::Tensor> merged_weights(const Transformer& model);

}  // namespace longreach
