// A token store (HDF5), opened and read by the forked copy that the library is called in.
#include <algorithm>
#include <vector>

#include "data/corpora/token_store.h"
#include "tests/fuzz/fuzz_input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* input, size_t size) {
  using namespace longreach;
  fuzz::expect_user_error([&] {
    const auto store = data::TokenStore::open(fuzz::as_file(fuzz::view(input, size), "fuzz.h5"));
    std::vector<data::Token> tokens(static_cast<size_t>(std::min<int64_t>(store->num_tokens(), 1000)));
    store->read(0, tokens);
    store->verify();
  });
  return 0;
}
