#include "layers/initialization.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/empty.h>

namespace longreach {

uint64_t derive_seed(uint64_t seed, std::string_view name) {
  uint64_t hash = 0xcbf29ce484222325ull ^ seed;  // FNV-1a over the name, then the finaliser of SplitMix64
  for (const char byte : name) hash = (hash ^ static_cast<unsigned char>(byte)) * 0x100000001b3ull;
  hash += 0x9e3779b97f4a7c15ull;
  hash = (hash ^ (hash >> 30)) * 0xbf58476d1ce4e5b9ull;
  hash = (hash ^ (hash >> 27)) * 0x94d049bb133111ebull;
  return hash ^ (hash >> 31);
}

at::Tensor normal_parameter(at::IntArrayRef shape, double std, uint64_t seed) {
  at::Tensor values = at::empty(shape, at::kFloat);
  values.normal_(0.0, std, at::detail::createCPUGenerator(seed));
  return values;
}

at::Tensor uniform_parameter(at::IntArrayRef shape, double bound, uint64_t seed) {
  at::Tensor values = at::empty(shape, at::kFloat);
  values.uniform_(-bound, bound, at::detail::createCPUGenerator(seed));
  return values;
}

}  // namespace longreach
