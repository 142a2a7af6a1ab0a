// The directory of a zip archive, and the bytes that it leads to.
#include "checkpoints/formats/zip_directory.h"
#include "tests/fuzz/fuzz_input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace longreach;
  fuzz::expect_user_error([&] {
    for (const auto& [name, entry] : read_zip_directory(fuzz::view(data, size), "fuzz"))
      checked_bytes(entry, "fuzz");
  });
  return 0;
}
