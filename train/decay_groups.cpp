#include "train/decay_groups.h"

#include <algorithm>
#include <regex>
#include <set>
#include <vector>

#include "core/error.h"
#include "layers/basic/module.h"

namespace longreach {
namespace {

struct Group {
  int64_t tensors = 0, numbers = 0;
  std::vector<std::string> parts;  // each once

  std::string words() const {
    if (tensors == 0) return "nothing";
    return text(tensors, " tensors of ", numbers, " parameters (", join(parts, " "), ")");
  }
};

// "model.layers.3.self_attn.q_proj.weight" -> "q_proj"
std::string part_of(const std::string& name) {
  static const std::regex kPlace(R"(^(model\.)?(layers\.\d+\.)?(self_attn\.|mlp\.)?)"), kEnd(R"(\.weight$)");
  return std::regex_replace(std::regex_replace(name, kPlace, ""), kEnd, "");
}

}  // namespace

DecayGroups decay_groups(const torch::nn::Module& model) {
  const std::set<std::string> undecayed = undecayed_parameters(model);
  Group decayed, left;
  for (const auto& item : model.named_parameters()) {
    if (!item.value().requires_grad()) continue;
    Group& group = undecayed.count(item.key()) > 0 ? left : decayed;
    ++group.tensors;
    group.numbers += item.value().numel();
    const std::string part = part_of(item.key());
    if (std::find(group.parts.begin(), group.parts.end(), part) == group.parts.end())
      group.parts.push_back(part);
  }
  return {decayed.words(), left.words()};
}

}  // namespace longreach
