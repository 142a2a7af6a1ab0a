#include "train/program/eval_layers.h"

#include <cmath>
#include <iomanip>
#include <iostream>

#include "core/error.h"

namespace longreach {

void print_table(const std::vector<LayerResult>& results) {
  const LayerResult& teacher = results.front();
  const PositionBucket& far = teacher.far();
  std::cout << "perplexity with one layer converted; far: positions " << far.first << " - " << far.last
            << "\n"
            << " layer  kind          perplexity    added         far    added\n"
            << std::fixed;
  for (const LayerResult& result : results) {
    std::cout << std::setw(6) << (result.layer < 0 ? "-" : std::to_string(result.layer)) << "  " << std::left
              << std::setw(12) << result.kind << std::right;
    for (const auto& [nll, before] :
         {std::pair(result.evaluation.nll, teacher.evaluation.nll), std::pair(result.far().nll, far.nll)}) {
      std::cout << std::setw(12) << std::setprecision(4) << std::exp(nll);
      if (result.layer >= 0)
        std::cout << std::showpos << std::setw(8) << std::setprecision(2) << 100 * std::expm1(nll - before)
                  << "%" << std::noshowpos;
      else
        std::cout << std::setw(9) << "";
    }
    std::cout << "\n";
  }
  std::vector<std::string> order;
  for (const int64_t layer : layers_that_stay(results)) order.push_back(std::to_string(layer));
  std::cout << "stay first: " << join(order, ",") << "\n";
}

nlohmann::ordered_json to_json(const SavedModel& saved, const std::vector<LayerResult>& results) {
  nlohmann::ordered_json json;
  json["checkpoint"] = saved.path;
  json["step"] = saved.step;
  for (const LayerResult& result : results)
    json["layers"].push_back({{"layer", result.layer},
                              {"kind", result.kind},
                              {"tokens", result.evaluation.tokens},
                              {"nll", result.evaluation.nll},
                              {"far_nll", result.far().nll}});
  json["stay_first"] = layers_that_stay(results);
  return json;
}

}  // namespace longreach
