// Who must know when a part of a model uses its parameters: they may be elsewhere until then.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstddef>
#include <vector>

namespace longreach {

class UnitGuard {
 public:
  virtual ~UnitGuard() = default;
  // Before the forward pass of a unit, its recomputation too. x: what it is applied to.
  virtual void enter(size_t unit, const at::Tensor& x) = 0;
  // After it. outputs: all that depends on the unit's parameters or on x.
  virtual void leave(size_t unit, const std::vector<at::Tensor>& outputs) = 0;
};

}  // namespace longreach
