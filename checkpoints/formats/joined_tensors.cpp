#include "checkpoints/formats/joined_tensors.h"

#include "checkpoints/formats/torch_file.h"
#include "core/error.h"

namespace longreach {

JoinedTensors::JoinedTensors(const std::vector<std::string>& paths) {
  for (const std::string& path : paths) {
    const std::shared_ptr<const TensorSource> file = open_tensor_file(path);
    for (const std::string& name : file->names()) {
      check<CheckpointError>(files_.emplace(name, file).second,
                             one_line(text(path, ": `", name, "`: is also in another file")));
      names_.push_back(name);
    }
  }
}

const TensorSource& JoinedTensors::file(const std::string& name) const {
  const auto found = files_.find(name);
  check<CheckpointError>(found != files_.end(), "no file holds `", one_line(name, 200), "`");
  return *found->second;
}

}  // namespace longreach
