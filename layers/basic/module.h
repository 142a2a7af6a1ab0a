// A torch module whose parameters say, where they are registered, whether weight decay acts on them.
#pragma once
#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <set>
#include <string>
#include <utility>

namespace longreach {

// Decay pulls towards zero: right for matrices of products and embeddings; wrong for what has another neutral
// value or a meaning of its own: norm weights, biases, frequencies, positions, learned constants.
enum class WeightDecay { yes, no };

class Module : public torch::nn::Module {
 public:
  using torch::nn::Module::Module;

  at::Tensor& register_parameter(const std::string& name, at::Tensor initial, WeightDecay decay) {
    if (decay == WeightDecay::no) undecayed_.insert(name);
    return torch::nn::Module::register_parameter(name, std::move(initial));
  }
  // Names of own parameters, children's not among them.
  const std::set<std::string>& undecayed() const { return undecayed_; }

 private:
  std::set<std::string> undecayed_;
};

// Names, as in root.named_parameters(), of what weight decay leaves alone. Parameters of a module that is no
// Module are judged by their shape: vectors and scalars are not decayed.
std::set<std::string> undecayed_parameters(const torch::nn::Module& root);

}  // namespace longreach
