// Initial parameters that depend on a seed and a name alone, not on the order in which modules are built.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string_view>

namespace longreach {

// A seed for the part called `name` of whatever `seed` belongs to.
uint64_t derive_seed(uint64_t seed, std::string_view name);

// Float32 tensor on the CPU drawn from normal(0, std).
at::Tensor normal_parameter(at::IntArrayRef shape, double std, uint64_t seed);
// The same from the uniform distribution over [-bound, bound).
at::Tensor uniform_parameter(at::IntArrayRef shape, double bound, uint64_t seed);

}  // namespace longreach
