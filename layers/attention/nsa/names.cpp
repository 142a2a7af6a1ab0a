// The parameters of a layer under the names of the three public codes.
#include "core/error.h"
#include "layers/attention/nsa/nsa.h"

namespace longreach {
namespace {

using Names = std::vector<std::pair<std::string, std::string>>;

// flash-linear-attention has no learned phi; those parameters go by XunhaoLai's names.
void add_phi(const NsaConfig& config, Names& names) {
  if (config.layout != "fla" || config.compress != "mean")
    names.emplace_back("intra_block_pe", "intra_block_pe");
  if (config.compress == "weighted" || config.compress == "linear")
    for (const char* name : {"compress_key", "compress_value"}) names.emplace_back(name, name);
  if (config.compress != "mlp") return;
  for (const char* name : {"compress_key", "compress_value"})
    for (const char* layer : {".up", ".down"})
      for (const char* part : {".weight", ".bias"}) {
        const std::string ours = text(name, layer, part);
        names.emplace_back(ours, ours);
      }
}

Names lucidrains(const NsaConfig& config, const LayerSite& site) {
  const int64_t q = site.num_heads * site.head_dim, kv = site.num_kv_heads * site.head_dim;
  const auto rows = [](int64_t first, int64_t end) { return text("to_qkv.weight[", first, ":", end, "]"); };
  Names names{{"q_proj.weight", rows(0, q)},
              {"k_proj.weight", rows(q, q + kv)},
              {"v_proj.weight", rows(q + kv, q + 2 * kv)},
              {"o_proj.weight", "combine_heads.weight"},
              {"g_proj.weight", "to_strategy_combine.0.weight"},
              {"g_proj.bias", "to_strategy_combine.0.bias"},
              {"intra_block_pe", "k_intrablock_positions"},
              {"intra_block_pe_value", "v_intrablock_positions"}};
  if (config.memory_slots > 0) names.emplace_back("compress_memory", "compress_mem_kv");
  if (config.compress == "mlp")
    for (const auto& [ours, theirs] : Names{{"compress_key", "k_compress"}, {"compress_value", "v_compress"}})
      for (const auto& [layer, number] : Names{{".up", ".1"}, {".down", ".3"}})
        for (const char* part : {".weight", ".bias"})
          names.emplace_back(text(ours, layer, part), text(theirs, number, part));
  return names;
}

}  // namespace

std::vector<std::pair<std::string, std::string>> nsa_checkpoint_names(const NsaConfig& config,
                                                                      const LayerSite& site) {
  if (config.layout == "lucidrains") return lucidrains(config, site);
  Names names;
  if (config.layout == "fla") {
    for (const char* letter : {"q", "k", "v", "o", "g"}) {
      const std::string ours = text(letter, "_proj.weight");
      names.emplace_back(ours, "attn." + ours);
    }
  } else {
    for (const char* letter : {"q", "k", "v", "o"})
      names.emplace_back(text(letter, "_proj.weight"), text("proj_", letter, ".weight"));
    names.emplace_back("g_proj.weight", "gate.0.weight");
  }
  add_phi(config, names);
  return names;
}

}  // namespace longreach
