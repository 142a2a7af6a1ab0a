#include "checkpoints/formats/renamed_tensors.h"

#include "core/error.h"

namespace longreach {

void RenamedTensors::add(const std::string& name, const std::string& theirs) {
  add(name, {.name = theirs, .shape = source_->shape(theirs), .change = {}});
}

void RenamedTensors::add(const std::string& name, Origin origin) {
  check<CheckpointError>(!contains(name), "`", one_line(origin.name, 200), "`: two tensors are `",
                         one_line(name, 200), "`");
  names_.push_back(name);
  origins_.emplace(name, std::move(origin));
}

const RenamedTensors::Origin& RenamedTensors::origin(const std::string& name) const {
  const auto found = origins_.find(name);
  check<CheckpointError>(found != origins_.end(), "no file holds `", one_line(name, 200), "`");
  return found->second;
}

at::Tensor RenamedTensors::tensor(const std::string& name) const {
  const Origin& from = origin(name);
  const at::Tensor read = source_->tensor(from.name);
  return from.change ? from.change(read).contiguous() : read;
}

at::Tensor RenamedTensors::run(const std::string& name, int64_t begin, int64_t elements) const {
  const Origin& from = origin(name);
  return from.change ? TensorSource::run(name, begin, elements) : source_->run(from.name, begin, elements);
}

}  // namespace longreach
