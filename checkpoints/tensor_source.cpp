#include "checkpoints/tensor_source.h"

#include "core/error.h"

namespace longreach {

at::Tensor TensorSource::run(const std::string& name, int64_t begin, int64_t elements) const {
  const at::Tensor flat = tensor(name).reshape({-1});
  check<CheckpointError>(begin >= 0 && elements >= 0 && begin <= flat.numel() - elements, "`",
                         one_line(name, 200), "`: has no ", elements, " elements from ", begin, " on");
  return flat.narrow(0, begin, elements);
}

}  // namespace longreach
