#include "train/conversion.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <iostream>
#include <map>

#include "checkpoints/formats/renamed_tensors.h"
#include "core/error.h"
#include "train/config_changes.h"
#include "train/saved_model.h"

namespace longreach {
namespace {

bool holds(const std::vector<bool>& layers, std::string_view parameter) {
  const int64_t layer = attention_layer_of(parameter);
  return layer >= 0 && static_cast<size_t>(layer) < layers.size() && layers[static_cast<size_t>(layer)];
}

bool is_of_key_heads(std::string_view name) {
  return name.find(".k_proj.") != std::string_view::npos || name.find(".v_proj.") != std::string_view::npos;
}

// [kv_heads * D, ...] -> [heads * D, ...]: each head as often as query heads share it, one after the other.
at::Tensor repeated_heads(const at::Tensor& rows, int64_t heads, int64_t times) {
  std::vector<int64_t> by_head = rows.sizes().vec();
  by_head[0] /= heads;
  by_head.insert(by_head.begin(), heads);
  return rows.view(by_head).repeat_interleave(times, 0).flatten(0, 1);
}

}  // namespace

bool Conversion::may_be_new(std::string_view parameter) const {
  return holds(from_teacher, parameter) || holds(converted, parameter);
}

Conversion conversion_of(const ModelConfig& model, const ModelConfig& base, const Teacher& teacher) {
  Conversion conversion{.from_teacher = changed_layers(base, model), .converted = {}};
  conversion.converted = conversion.from_teacher;
  for (size_t i = 0; i < conversion.converted.size(); ++i)
    (teacher.converted[i] ? conversion.from_teacher : conversion.converted)[i] = false;
  return conversion;
}

std::shared_ptr<const TensorSource> converted_tensors(std::shared_ptr<const TensorSource> base,
                                                      const Conversion& conversion,
                                                      const Transformer& model) {
  const auto own = model_tensors(model);
  const std::map<std::string, at::Tensor> by_name(own.begin(), own.end());
  const int64_t kv_heads = model.config().num_key_value_heads;
  auto tensors = std::make_shared<RenamedTensors>(base);
  for (const std::string& name : base->names()) {
    if (holds(conversion.from_teacher, name)) continue;
    const auto wanted = by_name.find(name);
    const std::vector<int64_t>& shape = base->shape(name);
    const bool repeats = holds(conversion.converted, name) && is_of_key_heads(name) &&
                         wanted != by_name.end() &&
                         wanted->second.dim() == static_cast<int64_t>(shape.size()) && shape[0] > 0 &&
                         shape[0] % kv_heads == 0 && wanted->second.size(0) % shape[0] == 0;
    if (!repeats) {
      tensors->add(name, name);
      continue;
    }
    const int64_t times = wanted->second.size(0) / shape[0];
    tensors->add(name, {.name = name,
                        .shape = wanted->second.sizes().vec(),
                        .change = [kv_heads, times](const at::Tensor& rows) {
                          return repeated_heads(rows, kv_heads, times);
                        }});
  }
  return tensors;
}

void take_attention(Transformer& model, const Teacher& teacher, const Conversion& conversion) {
  const at::NoGradGuard no_grad;
  const auto theirs = model_tensors(*teacher.model);
  const std::map<std::string, at::Tensor> by_name(theirs.begin(), theirs.end());
  for (auto& [name, tensor] : model_tensors(model))
    if (holds(conversion.from_teacher, name)) tensor.copy_(by_name.at(name));
}

void print_conversion(const Conversion& conversion, const std::vector<std::string>& added) {
  const auto count = [](const std::vector<bool>& layers) {
    return std::count(layers.begin(), layers.end(), true);
  };
  const auto fresh = std::count_if(
      added.begin(), added.end(), [&](const std::string& name) { return holds(conversion.converted, name); });
  std::cout << "converted  " << count(conversion.converted) << " layers: " << fresh
            << " tensors are new and start from initial values; " << count(conversion.from_teacher)
            << " layers take the teacher's attention" << std::endl;
}

}  // namespace longreach
