#include "layers/basic/module.h"

namespace longreach {

std::set<std::string> undecayed_parameters(const torch::nn::Module& root) {
  std::set<std::string> names;
  const auto visit = [&](const std::string& path, const torch::nn::Module& module) {
    const std::string prefix = path.empty() ? "" : path + ".";
    const auto* marked = dynamic_cast<const Module*>(&module);
    for (const auto& item : module.named_parameters(/*recurse=*/false))
      if (marked ? marked->undecayed().count(item.key()) > 0 : item.value().dim() < 2)
        names.insert(prefix + item.key());
  };
  visit("", root);
  for (const auto& item : root.named_modules("", /*include_self=*/false)) visit(item.key(), *item.value());
  return names;
}

}  // namespace longreach
