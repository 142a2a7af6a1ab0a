#include "train/rank_size.h"

#include <algorithm>
#include <vector>

#include "distributed/flat_unit.h"
#include "distributed/unit_parameters.h"

namespace longreach {
namespace {

// Of a unit: what it has without padding, and what travels of it.
struct UnitBytes {
  double trained = 0, frozen = 0;
  double trained_flat = 0, frozen_flat = 0;

  double whole() const { return trained_flat + frozen_flat; }
};

double bytes_of(const FlatUnit::Named& parameters) {
  double bytes = 0;
  for (const auto& [name, parameter] : parameters)
    bytes += static_cast<double>(parameter.numel()) * static_cast<double>(parameter.element_size());
  return bytes;
}

double flat_bytes_of(const FlatUnit::Named& parameters, int parts) {
  if (parameters.empty()) return 0;
  return static_cast<double>(FlatUnit::elements_of(parameters, parts)) *
         static_cast<double>(parameters[0].second.element_size());
}

// In the order of parameters_of_units: what belongs to no layer is last.
std::vector<UnitBytes> units_of(const Transformer& model, int parts) {
  std::vector<UnitBytes> units;
  for (const UnitParameters& parameters : parameters_of_units(model, model.units())) {
    UnitBytes& unit = units.emplace_back(UnitBytes{.trained = bytes_of(parameters.trained),
                                                   .trained_flat = flat_bytes_of(parameters.trained, parts)});
    for (const auto& [dtype, frozen] : parameters.frozen) {
      unit.frozen += bytes_of(frozen);
      unit.frozen_flat += flat_bytes_of(frozen, parts);
    }
  }
  return units;
}

// What leaves a rank when each of so many has a share of something and all get all of it; half of a sum.
double to_all(double bytes, double ranks) { return bytes * (ranks - 1) / ranks; }

}  // namespace

RankState state_of_rank(const Transformer& model, const ParallelDegrees& degrees, int zero_stage,
                        int64_t micro_batches) {
  const auto copies = static_cast<double>(degrees.replicate),
             share = static_cast<double>(degrees.shard * degrees.context), world = copies * share,
             passes = static_cast<double>(micro_batches);
  const int stage = share > 1 ? zero_stage : 0;
  const std::vector<UnitBytes> units = units_of(model, static_cast<int>(world));
  double trained = 0, frozen = 0, flat = 0, layers = 0, largest = 0;
  for (size_t u = 0; u < units.size(); ++u) {
    trained += units[u].trained;
    frozen += units[u].frozen;
    flat += units[u].trained_flat;
    if (u + 1 == units.size()) continue;
    layers += units[u].whole();
    largest = std::max(largest, units[u].whole());
  }
  RankState state;
  state.trained = trained / (stage == 3 ? share : 1);
  state.weights = state.trained + frozen / (stage == 3 ? share : 1);
  state.gradients = trained / (stage >= 2 ? share : 1);
  state.moments = 2 * trained / (stage >= 1 ? share : 1);
  if (world == 1) return state;
  state.in_flight = 2 * largest;
  // A sum for those who keep it; where several copies of the model are, each sums a part and gives it on.
  const double sums =
      stage == 0 ? 2 * to_all(flat, world) : to_all(flat, world) + to_all(flat / share, copies);
  state.sent["gradients"] = sums * (stage >= 2 ? passes : 1);
  // Of float32 shares the squares, summed in float64 block by block.
  if (stage > 0) state.sent["norm"] = to_all(flat / 4 / kSquaresBlock * 8, share);
  if (stage == 1 || stage == 2) state.sent["parameters"] = to_all(flat, share);
  if (stage == 3) {
    const double rest = units.back().whole();
    state.sent["parameters"] = passes * (2 * to_all(layers, share) + to_all(rest, share));
    state.gathered = 2 * largest + rest;
  }
  return state;
}

}  // namespace longreach
