#include "train/device.h"

#include <cstdlib>
#include <sstream>
#include <vector>

#include "core/error.h"

namespace longreach {

std::string visible_device(const std::string& visible, const Environment& environment) {
  if (environment.local_world == 1) return visible;
  if (visible.empty()) return text(environment.local_rank);
  std::vector<std::string> devices;
  std::istringstream in(visible);
  for (std::string device; std::getline(in, device, ',');) devices.push_back(device);
  if (devices.size() == 1) return visible;
  check<ConfigError>(static_cast<int>(devices.size()) >= environment.local_world,
                     "CUDA_VISIBLE_DEVICES = ", visible, ": ", devices.size(), " devices for ",
                     environment.local_world,
                     " ranks of this machine; expected one for each, or each rank's own alone");
  return devices[static_cast<size_t>(environment.local_rank)];
}

void show_own_device_alone(const Environment& environment) {
  constexpr const char* kVisible = "CUDA_VISIBLE_DEVICES";
  const char* visible = std::getenv(kVisible);
  const std::string own = visible_device(visible == nullptr ? "" : visible, environment);
  if (!own.empty()) ::setenv(kVisible, own.c_str(), 1);
}

}  // namespace longreach
