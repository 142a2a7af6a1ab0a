// One run of one reference-vector file: what the `verify` of a mechanism or operator reads and gives back.
#pragma once
#include <ATen/core/Tensor.h>

#include <map>
#include <set>
#include <string>

#include "layers/ops/common/implementation.h"
#include "train/verify/vector_file.h"

namespace longreach::verify {

class Case {
 public:
  // dtype: float64, float32 or bfloat16, of the inputs and parameters that are asked for.
  Case(const VectorFile& file, Implementation implementation, at::ScalarType dtype)
      : file(file), implementation(implementation), dtype(dtype) {}

  const VectorFile& file;
  const Implementation implementation;
  const at::ScalarType dtype;

  // float32, or float64 in a float64 run: states, decays and statistics.
  at::ScalarType wide() const { return dtype == at::kDouble ? at::kDouble : at::kFloat; }

  bool has(const std::string& name) const { return file.contains(name); }

  // Throws UnknownCase: the file's path, then what is wrong with it.
  template <class... Parts>
  [[noreturn]] void refuse(const Parts&... parts) const {
    throw UnknownCase(one_line(text(file.path(), ": ", parts...)));
  }
  // f(); a config that it refuses is one that this program does not know.
  template <class F>
  auto known(F&& f) const {
    try {
      return f();
    } catch (const ConfigError& error) {
      refuse(error.what());
    }
  }

  // Each marks the tensor "in.x" or "param.x" as used. Throws UnknownCase when the file has no such tensor.
  at::Tensor leaf(const std::string& name);       // in `dtype`, differentiable
  at::Tensor wide_leaf(const std::string& name);  // in `wide()`, differentiable
  at::Tensor constant(const std::string& name);   // in `wide()`; its gradient is zero by construction
  at::Tensor integers(const std::string& name);   // as int64
  // in.x as [B, T, H, D] whatever the file's layout; the gradient stays in the file's.
  at::Tensor sequence(const std::string& name);

  void produce(const std::string& name, const at::Tensor& value) { outputs[name] = value; }
  // Lists of indices along the last axis, compared as sets (-1 pads).
  void produce_lists(const std::string& name, const at::Tensor& value) {
    produce(name, value);
    lists.insert(name);
  }
  // A [B, T, H, D] output, turned into the file's layout.
  void produce_sequence(const std::string& name, const at::Tensor& value);

  // What the driver reads afterwards, by name without prefix.
  std::map<std::string, at::Tensor> outputs;
  std::map<std::string, at::Tensor> leaves;
  std::set<std::string> used;   // with prefix
  std::set<std::string> lists;  // outputs that are index lists

 private:
  at::Tensor read(const std::string& name);
  at::Tensor add_leaf(const std::string& name, at::ScalarType as);
};

struct Qkv {
  at::Tensor q, k, v;
};

// in.q, in.k and in.v as Case::sequence gives them.
Qkv read_qkv(Case& run);

}  // namespace longreach::verify
