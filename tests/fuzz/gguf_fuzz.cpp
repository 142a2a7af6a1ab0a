// The header of a GGUF file.
#include "checkpoints/formats/gguf/gguf_header.h"
#include "tests/fuzz/fuzz_input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace longreach;
  fuzz::expect_user_error([&] { parse_gguf_header(fuzz::view(data, size), "fuzz"); });
  return 0;
}
