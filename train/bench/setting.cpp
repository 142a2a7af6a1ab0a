// Rows as JSON. `T` and `seconds` are the names that `longreach plot` reads.
#include "train/bench/setting.h"

namespace longreach::bench {

void to_json(nlohmann::json& json, const Row& row) {
  json = row.setting;
  json["T"] = row.setting.tokens;
  if (!row.refused.empty()) {
    json["refused"] = row.refused;
    return;
  }
  json["seconds"] = row.seconds_min;
  json["seconds_min"] = row.seconds_min;
  json["seconds_median"] = row.seconds_median;
  json["wall_min"] = row.wall_min;
  json["flops"] = row.flops;
  json["gflops_per_second"] = 1e-9 * row.flops / row.seconds_min;
  json["ns_per_token_head"] = row.nanoseconds_per_token_head();
  json["peak_share"] = row.peak_share;
  json["relative_error"] = row.error;
  if (row.setting.peer.empty()) return;
  json["peer_same_function"] = row.peer_same_function;
  json["peer_seconds_min"] = row.peer_seconds_min;
  json["peer_seconds_median"] = row.peer_seconds_median;
  json["peer_wall_min"] = row.peer_wall_min;
  json["ratio"] = row.ratio;
  json["ratio_of_minima"] = row.ratio_of_minima;
}

void from_json(const nlohmann::json& json, Row& row) {
  row.setting = json.get<Setting>();
  row.refused = json.value("refused", "");
  row.peer_same_function = json.value("peer_same_function", false);
  row.seconds_min = json.value("seconds_min", 0.0);
  row.seconds_median = json.value("seconds_median", 0.0);
  row.wall_min = json.value("wall_min", 0.0);
  row.peer_seconds_min = json.value("peer_seconds_min", 0.0);
  row.peer_seconds_median = json.value("peer_seconds_median", 0.0);
  row.peer_wall_min = json.value("peer_wall_min", 0.0);
  row.ratio = json.value("ratio", 0.0);
  row.ratio_of_minima = json.value("ratio_of_minima", 0.0);
  row.flops = json.value("flops", 0.0);
  row.peak_share = json.value("peak_share", 0.0);
  row.error = json.value("relative_error", 0.0);
}

}  // namespace longreach::bench
