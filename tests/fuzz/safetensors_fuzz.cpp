// The header of a safetensors file: the input is the file without the tensors' bytes, with their number in
// front.
#include "checkpoints/safetensors_header.h"

#include <cstring>

#include "tests/fuzz/fuzz_input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace longreach;
  uint32_t data_bytes = 0;
  if (size < sizeof data_bytes) return 0;
  std::memcpy(&data_bytes, data, sizeof data_bytes);
  fuzz::expect_user_error([&] {
    parse_safetensors_header(fuzz::view(data, size).substr(sizeof data_bytes), data_bytes, "fuzz");
  });
  return 0;
}
