#include "distributed/unit_parameters.h"

#include <set>

#include "core/error.h"

namespace longreach {

std::vector<UnitParameters> parameters_of_units(
    const torch::nn::Module& model, const std::vector<std::shared_ptr<torch::nn::Module>>& units) {
  std::map<const void*, size_t> unit_of;
  for (size_t u = 0; u < units.size(); ++u)
    for (const at::Tensor& parameter : units[u]->parameters()) {
      const size_t own = units.size() - 1 - u;
      size_t& unit = unit_of.emplace(parameter.unsafeGetTensorImpl(), own).first->second;
      if (unit != own) unit = units.size();
    }
  std::vector<UnitParameters> groups(units.size() + 1);
  std::set<const void*> seen;  // who has two names goes by the first
  for (const auto& item : model.named_parameters()) {
    const at::Tensor& parameter = item.value();
    if (!seen.insert(parameter.unsafeGetTensorImpl()).second) continue;
    const bool trains = parameter.requires_grad();
    check<ConfigError>(!trains || parameter.scalar_type() == at::kFloat, item.key(), ": is ",
                       parameter.scalar_type(), "; parameters that train must be float32");
    const auto unit = unit_of.find(parameter.unsafeGetTensorImpl());
    UnitParameters& group = groups[unit == unit_of.end() ? units.size() : unit->second];
    (trains ? group.trained : group.frozen[parameter.scalar_type()]).emplace_back(item.key(), parameter);
  }
  return groups;
}

}  // namespace longreach
