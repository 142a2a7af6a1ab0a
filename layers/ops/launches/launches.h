// All kernels of all operators, each once, on the named problems of their cuda/launches.h. A kernel that
// several problems start belongs to the first.
#pragma once
#include <vector>

#include "layers/ops/cuda/named_launches.h"

namespace longreach {

std::vector<cuda::NamedLaunch> named_launches();

}  // namespace longreach
