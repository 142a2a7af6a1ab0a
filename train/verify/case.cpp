#include "train/verify/case.h"

namespace longreach::verify {
namespace {

// "q" of "in.q".
std::string bare(const std::string& name) { return name.substr(name.find('.') + 1); }

}  // namespace

at::Tensor Case::read(const std::string& name) {
  if (!file.contains(name)) refuse("`", file.mechanism(), "`: tensor `", name, "` is missing");
  used.insert(name);
  return file.tensor(name);
}

at::Tensor Case::add_leaf(const std::string& name, at::ScalarType as) {
  const at::Tensor tensor = read(name);
  if (!at::isFloatingType(tensor.scalar_type()))
    refuse("`", name, "`: dtype ", c10::toString(tensor.scalar_type()), ", expected a float");
  return leaves[bare(name)] = tensor.to(as).requires_grad_(true);
}

at::Tensor Case::leaf(const std::string& name) { return add_leaf(name, dtype); }

at::Tensor Case::wide_leaf(const std::string& name) { return add_leaf(name, wide()); }

at::Tensor Case::constant(const std::string& name) {
  add_leaf(name, wide());
  return leaves[bare(name)].detach();
}

at::Tensor Case::integers(const std::string& name) { return read(name).to(at::kLong); }

at::Tensor Case::sequence(const std::string& name) {
  const at::Tensor tensor = leaf(name);
  if (tensor.dim() != 4) refuse("`", name, "`: shape ", tensor.sizes(), ", expected four axes");
  return file.heads_first(bare(name)) ? tensor.transpose(1, 2) : tensor;
}

void Case::produce_sequence(const std::string& name, const at::Tensor& value) {
  produce(name, file.heads_first(name) ? value.transpose(1, 2) : value);
}

Qkv read_qkv(Case& run) { return {run.sequence("in.q"), run.sequence("in.k"), run.sequence("in.v")}; }

}  // namespace longreach::verify
