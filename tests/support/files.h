// Small file edits for tests of damage; TemporaryFolder comes along.
#pragma once
#include <cstdint>
#include <string>

#include "tests/support/program.h"

namespace longreach::test {

void write_file(const std::string& path, const std::string& contents);
// Inverts one bit of one byte.
void flip_bit(const std::string& path, int64_t byte, int bit = 0);

}  // namespace longreach::test
