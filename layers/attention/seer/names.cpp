// The authors' names of the gate's options: config.json of their gates. Those of its weights are the
// parameters' own.
#include <nlohmann/json.hpp>

#include "layers/attention/seer/gate.h"

namespace longreach {

std::string SeerConfig::gate_config(const LayerSite& site) const {
  nlohmann::ordered_json json;
  json["seerattn_gate_block_size"] = block_size;
  json["seerattn_gate_hidden_size"] = gate_hidden;
  json["seerattn_sparsity_method"] = selection == "density" ? "nz_ratio"
                                     : selection == "top_k" ? "token_budget"
                                                            : selection;
  json["seerattn_threshold"] = threshold;
  if (seer_gate_form(*this, site).decode) {
    json["seerattn_q_head_pooling_type"] = q_pooling == "auto" ? "Qproj" : q_pooling;
    json["seerattn_k_seq_pooling_type"] = k_pooling;
    json["seerattn_use_qk_norm"] = gate_qk_norm;
    json["seerattn_use_rope"] = gate_rope;
    json["seerattn_loss_slice_ratio"] = loss_slice_ratio;
    json["seerattn_token_budget"] = selection == "top_k" ? top_k * block_size : token_budget;
  } else {
    json["seerattn_gate_type"] = (q_pooling == "auto" ? "Qavg" : q_pooling) + "_" + k_pooling;
    json["seerattn_gate_force_double"] = layout == "double";
    json["seerattn_last_block_dense"] = last_block_dense;
    json["seerattn_nz_ratio"] = density;
  }
  return json.dump();
}

}  // namespace longreach
