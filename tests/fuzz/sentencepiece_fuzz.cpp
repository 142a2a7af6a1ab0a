// A SentencePiece model, and a text through it.
#include "data/tokenizers/sentencepiece.h"

#include "tests/fuzz/fuzz_input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* input, size_t size) {
  using namespace longreach;
  fuzz::expect_user_error([&] {
    const auto tokenizer =
        data::load_sentencepiece(fuzz::as_file(fuzz::view(input, size), "tokenizer.model"));
    const auto tokens = tokenizer->encode("Two words, 123 numbers\n\xC3\xA9 <s>\xFF");
    tokenizer->decode(tokens);
    tokenizer->fingerprint();
  });
  return 0;
}
