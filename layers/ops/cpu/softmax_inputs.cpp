// Which product of bf16 tiles this CPU gets.
#include <atomic>

#include "layers/ops/cpu/amx.h"
#include "layers/ops/cpu/bf16_dot.h"
#include "layers/ops/cpu/softmax_inputs.h"

namespace longreach::softmax_tile {
namespace {

constexpr int32_t kUnset = -1;
std::atomic<int32_t> forced_product{kUnset};

}  // namespace

Bf16Product bf16_product() {
  const int32_t forced = forced_product.load();
  if (forced != kUnset) return static_cast<Bf16Product>(forced);
  static const Bf16Product best = simd::has_amx()            ? Bf16Product::kTiles
                                  : simd::bf16_dot_is_fast() ? Bf16Product::kDot
                                                             : Bf16Product::kFloat;
  return best;
}

void set_bf16_product_for_test(Bf16Product product) { forced_product = static_cast<int32_t>(product); }

}  // namespace longreach::softmax_tile
