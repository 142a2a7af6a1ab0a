// What `longreach train --help` prints and configs/every_key.toml holds.
#pragma once
#include <cstdint>
#include <string>

namespace longreach {

// "usage: longreach train CONFIG ..."
std::string train_usage();

// Every key with its default and its help, remarks no longer than `width`.
std::string example_config(int64_t width = 100);

}  // namespace longreach
