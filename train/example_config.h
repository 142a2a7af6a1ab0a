// The commented config that names every key: `longreach train --help` and configs/every_key.toml.
#pragma once
#include <string>

namespace longreach {

std::string example_config();

}  // namespace longreach
