#include "layers/basic/norm.h"

#include "core/error.h"
#include "layers/basic/initial_values.h"

namespace longreach {

Norm::Norm(const std::string& kind, int64_t size, double eps) : eps_(eps) {
  check<ConfigError>(kind == "rmsnorm" || kind == "srmsnorm", "norm = \"", kind,
                     "\": expected rmsnorm or srmsnorm");
  if (kind == "rmsnorm")
    weight_ = register_parameter("weight", filled_parameter({size}, 1.0), WeightDecay::no);
}

}  // namespace longreach
