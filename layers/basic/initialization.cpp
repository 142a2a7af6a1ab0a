#include "layers/basic/initialization.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/empty.h>

#include <utility>

#include "layers/basic/initial_values.h"

namespace longreach {
namespace {

thread_local std::optional<WithoutInitialValues::Form> without_values;

// A parameter whose values `draw` sets, unless nobody wants them.
template <class Draw>
at::Tensor parameter(at::IntArrayRef shape, const Draw& draw) {
  const bool sizes_only = without_values == WithoutInitialValues::Form::shapes;
  at::Tensor values =
      at::empty(shape, at::TensorOptions().dtype(at::kFloat).device(sizes_only ? at::kMeta : at::kCPU));
  if (!without_values) draw(values);
  return values;
}

}  // namespace

WithoutInitialValues::WithoutInitialValues(Form form) : before_(std::exchange(without_values, form)) {}
WithoutInitialValues::~WithoutInitialValues() { without_values = before_; }

uint64_t derive_seed(uint64_t seed, std::string_view name) {
  uint64_t hash = 0xcbf29ce484222325ull ^ seed;  // FNV-1a over the name, then the finaliser of SplitMix64
  for (const char byte : name) hash = (hash ^ static_cast<unsigned char>(byte)) * 0x100000001b3ull;
  hash += 0x9e3779b97f4a7c15ull;
  hash = (hash ^ (hash >> 30)) * 0xbf58476d1ce4e5b9ull;
  hash = (hash ^ (hash >> 27)) * 0x94d049bb133111ebull;
  return hash ^ (hash >> 31);
}

at::Tensor normal_parameter(at::IntArrayRef shape, double std, uint64_t seed) {
  return parameter(
      shape, [&](at::Tensor& values) { values.normal_(0.0, std, at::detail::createCPUGenerator(seed)); });
}

at::Tensor uniform_parameter(at::IntArrayRef shape, double bound, uint64_t seed) {
  return parameter(shape, [&](at::Tensor& values) {
    values.uniform_(-bound, bound, at::detail::createCPUGenerator(seed));
  });
}

at::Tensor filled_parameter(at::IntArrayRef shape, double value) {
  return parameter(shape, [&](at::Tensor& values) { values.fill_(value); });
}

}  // namespace longreach
