// The one form of a warning: a line on standard error.
#pragma once
#include <iostream>
#include <string>

#include "core/error.h"

namespace longreach {

inline void warn(const std::string& message) { std::cerr << "warning: " << one_line(message) << std::endl; }

}  // namespace longreach
