// Parameters before anything is learnt: drawn, or, where nobody wants the values, not.
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>

namespace longreach {

// While one exists, the functions of layers/basic/initialization.h and this file draw nothing on this thread:
// parameters are memory that nobody has touched, for a checkpoint to take its place (`untouched`), or shapes
// without memory, to be counted (`shapes`).
class WithoutInitialValues {
 public:
  enum class Form { untouched, shapes };
  explicit WithoutInitialValues(Form form);
  ~WithoutInitialValues();
  WithoutInitialValues(const WithoutInitialValues&) = delete;
  WithoutInitialValues& operator=(const WithoutInitialValues&) = delete;

 private:
  std::optional<Form> before_;
};

// Float32 tensor on the CPU with one value everywhere.
at::Tensor filled_parameter(at::IntArrayRef shape, double value);

}  // namespace longreach
