// Which CUDA device is a rank's own.
#pragma once
#include <string>

#include "distributed/environment.h"

namespace longreach {

// What CUDA_VISIBLE_DEVICES, empty where it is not set, becomes for this rank, so that all of its threads see
// its own device alone: the one of its number on this machine. One that an engine has bound to it stays.
// Throws ConfigError where there are several, but fewer than ranks.
std::string visible_device(const std::string& visible, const Environment& environment);

// Sets it. CUDA reads it once, when it is first asked.
void show_own_device_alone(const Environment& environment);

}  // namespace longreach
