// Layers of a trained model that get another kind of attention, and what they keep of their parameters.
#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoints/tensor_source.h"
#include "models/transformer.h"
#include "train/teacher.h"

namespace longreach {

// Layer by layer, of a run's own model; empty: nothing is converted.
struct Conversion {
  std::vector<bool> from_teacher;  // its attention is not what the base has, and what the teacher has
  std::vector<bool> converted;     // it is neither

  // Whether a parameter may keep its initial values since the base's attention has none of the name.
  bool may_be_new(std::string_view parameter) const;
};

// base: the config of the model that the run starts from.
Conversion conversion_of(const ModelConfig& model, const ModelConfig& base, const Teacher& teacher);

// The base's tensors as `model` takes them: without the attention of layers that take the teacher's; in
// converted layers key and value heads repeated where the model's are a multiple of the base's.
std::shared_ptr<const TensorSource> converted_tensors(std::shared_ptr<const TensorSource> base,
                                                      const Conversion& conversion, const Transformer& model);

// Copies the teacher's attention into the layers that take it.
void take_attention(Transformer& model, const Teacher& teacher, const Conversion& conversion);

// added: parameters that the base had not.
void print_conversion(const Conversion& conversion, const std::vector<std::string>& added);

}  // namespace longreach
