// The pickle in a file of torch.save.
#include "checkpoints/formats/pickle.h"
#include "tests/fuzz/fuzz_input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace longreach;
  fuzz::expect_user_error([&] { read_pickled_tensors(fuzz::view(data, size), "fuzz"); });
  return 0;
}
