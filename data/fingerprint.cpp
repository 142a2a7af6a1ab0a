// XXH3-64 in hexadecimal.
#include "data/fingerprint.h"

#include <xxhash.h>

#include <cstdio>

namespace longreach::data {

std::string hash_hex(std::string_view bytes) {
  char digits[17];
  std::snprintf(digits, sizeof digits, "%016llx",
                static_cast<unsigned long long>(XXH3_64bits(bytes.data(), bytes.size())));
  return digits;
}

}  // namespace longreach::data
