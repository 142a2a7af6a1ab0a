// XXH3-64 in hexadecimal.
#include "data/common/fingerprint.h"

#include <xxhash.h>

#include <cstdio>

namespace longreach::data {
namespace {

std::string digits_of(uint64_t hash) {
  char digits[17];
  std::snprintf(digits, sizeof digits, "%016llx", static_cast<unsigned long long>(hash));
  return digits;
}

}  // namespace

std::string hash_hex(std::string_view bytes) { return digits_of(XXH3_64bits(bytes.data(), bytes.size())); }

Hasher::Hasher() : state_(XXH3_createState(), [](XXH3_state_s* state) { XXH3_freeState(state); }) {
  XXH3_64bits_reset(state_.get());
}
void Hasher::add(const void* data, size_t bytes) { XXH3_64bits_update(state_.get(), data, bytes); }
uint64_t Hasher::value() const { return XXH3_64bits_digest(state_.get()); }
std::string Hasher::hex() const { return digits_of(value()); }

}  // namespace longreach::data
