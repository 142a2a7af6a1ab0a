#include "models/adapter.h"

#include <algorithm>
#include <memory>
#include <set>

#include "core/error.h"
#include "layers/basic/initialization.h"
#include "layers/basic/linear.h"

namespace longreach {
namespace {

struct NamedProjection {
  std::string name;    // model.layers.0.self_attn.q_proj
  std::string target;  // q_proj
  std::shared_ptr<Linear> linear;
};

// What comes before and after the last dot.
std::pair<std::string_view, std::string_view> split_last(std::string_view name) {
  const size_t dot = name.rfind('.');
  if (dot == std::string_view::npos) return {"", name};
  return {name.substr(0, dot), name.substr(dot + 1)};
}

// Modules deeper than the children of self_attn and mlp are inner parts of a mechanism, which may use their
// weights in ways of its own; the output layer is a module to save.
std::vector<NamedProjection> projections(const Transformer& model) {
  std::vector<NamedProjection> found;
  for (const auto& item : model.named_modules("", false)) {
    const auto [parent, target] = split_last(item.key());
    if (!parent.ends_with(".self_attn") && !parent.ends_with(".mlp")) continue;
    if (auto linear = std::dynamic_pointer_cast<Linear>(item.value()))
      found.push_back({item.key(), std::string(target), std::move(linear)});
  }
  return found;
}

// The same names once each, in the order met.
std::vector<std::string> distinct(const std::vector<std::string>& names) {
  std::vector<std::string> once;
  for (const std::string& name : names)
    if (std::find(once.begin(), once.end(), name) == once.end()) once.push_back(name);
  return once;
}

bool contains(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

void expect_targets(const std::vector<NamedProjection>& all, const std::vector<std::string>& targets) {
  std::vector<std::string> names;
  for (const NamedProjection& projection : all) names.push_back(projection.target);
  names = distinct(names);
  check<ConfigError>(!targets.empty(), "adapter.target_modules: names no projection; this model has ",
                     join(names));
  for (const std::string& target : targets)
    check<ConfigError>(contains(names, target), "adapter.target_modules: no layer has `", target,
                       "`; this model has ", join(names), did_you_mean(target, names));
}

void expect_modules_to_save(const Transformer& model, const std::vector<NamedProjection>& all,
                            const AdapterConfig& config) {
  std::vector<std::string> parameters, modules;
  for (const auto& item : model.named_parameters()) {
    parameters.push_back(item.key());
    modules.emplace_back(split_last(split_last(item.key()).first).second);
  }
  modules = distinct(modules);
  for (const std::string& part : config.modules_to_save) {
    const bool known =
        !part.empty() && std::any_of(parameters.begin(), parameters.end(),
                                     [&](const auto& name) { return name.find(part) != std::string::npos; });
    check<ConfigError>(known, "adapter.modules_to_save: no parameter's name has `", part,
                       "` in it; this model has ", join(modules), did_you_mean(part, modules));
  }
  for (const NamedProjection& projection : all)
    check<ConfigError>(!contains(config.target_modules, projection.target) ||
                           !is_saved_parameter(config, projection.name + ".weight"),
                       "adapter.modules_to_save: ", projection.name,
                       " would train whole and have an adapter; adapter.target_modules names it too");
}

}  // namespace

void AdapterConfig::fields(FieldVisitor& visit) {
  visit.field("type", type,
              {.help = "none; lora (arXiv 2106.09685): the model is frozen, low-rank adapters train",
               .allowed = one_of({"none", "lora"})});
  visit.field("r", r, {.help = "rank of the adapters (LongLoRA: 8)", .allowed = at_least(1)});
  visit.field("lora_alpha", lora_alpha,
              {.help = "adapters are scaled by lora_alpha / r (LongLoRA: 16)", .allowed = at_least(1)});
  visit.field("lora_dropout", lora_dropout,
              {.help = "share of an adapter's inputs dropped in training", .allowed = real_between(0, 0.99)});
  visit.field(
      "target_modules", target_modules,
      {.help = "projections that get an adapter, in every layer that has them: q_proj, k_proj, v_proj, "
               "o_proj, gate_proj, up_proj, down_proj, and others that a mechanism has"});
  visit.field(
      "modules_to_save", modules_to_save,
      {.help = "parameters with one of these in their names train whole and are kept with the adapters "
               "(LongLoRA's LoRA+: \"embed\", \"norm\")"});
  visit.field("base_dtype", base_dtype,
              {.help = "of the weights of projections, embedding and output layer that do not train",
               .allowed = one_of({"float32", "bfloat16"})});
}

void AdapterConfig::expect_present(std::string_view what) const {
  check<ConfigError>(present(), what, ": the model has no adapters ([adapter] type = \"none\")");
}

bool is_adapter_parameter(std::string_view name) {
  return name.find(".lora_A.") != std::string_view::npos || name.find(".lora_B.") != std::string_view::npos;
}

bool is_saved_parameter(const AdapterConfig& config, std::string_view name) {
  return !is_adapter_parameter(name) &&
         std::any_of(config.modules_to_save.begin(), config.modules_to_save.end(),
                     [&](const std::string& part) { return name.find(part) != std::string_view::npos; });
}

void add_adapters(Transformer& model, const AdapterConfig& config, uint64_t seed) {
  if (!config.present()) return;
  const std::vector<NamedProjection> all = projections(model);
  expect_targets(all, config.target_modules);
  expect_modules_to_save(model, all, config);
  for (auto& item : model.named_parameters())
    item.value().set_requires_grad(is_saved_parameter(config, item.key()));
  for (const NamedProjection& projection : all)
    if (contains(config.target_modules, projection.target))
      projection.linear->add_adapter(
          {.r = config.r,
           .scale = static_cast<double>(config.lora_alpha) / static_cast<double>(config.r),
           .dropout = config.lora_dropout,
           .seed = derive_seed(seed, projection.name)});
}

void begin_pass(Transformer& model, uint64_t pass) {
  for (const auto& module : model.modules(false))
    if (auto linear = std::dynamic_pointer_cast<Linear>(module)) linear->begin_pass(pass);
}

std::map<std::string, at::Tensor> merged_weights(const Transformer& model) {
  std::map<std::string, at::Tensor> merged;
  for (const NamedProjection& projection : projections(model))
    if (projection.linear->has_adapter())
      merged[projection.name + ".weight"] = projection.linear->merged_weight().detach();
  return merged;
}

}  // namespace longreach
