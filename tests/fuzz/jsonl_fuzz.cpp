// Files of JSON records, packed or not: the first byte says whether by lines or by values, the rest is the
// file.
#include "data/corpora/json_lines.h"
#include "data/tokenizers/byte_tokenizer.h"
#include "tests/fuzz/fuzz_input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* input, size_t size) {
  using namespace longreach;
  if (size == 0) return 0;
  const auto form = input[0] == 'l' ? data::RecordForm::lines : data::RecordForm::values;
  const std::string path = fuzz::as_file(fuzz::view(input + 1, size - 1), "corpus.jsonl");
  const data::ByteTokenizer tokenizer;
  fuzz::expect_user_error([&] {
    data::RecordReader reader(path, form);
    data::ExampleNotes notes;
    std::string record;
    while (reader.next(record)) {
      data::is_example(record, "text", reader.where());
      data::encode_json_line(record, tokenizer, "text", data::ChatChoice{"chatml", nullptr}, reader.where(),
                             notes);
    }
  });
  fuzz::expect_user_error([&] { data::record_form(path, "text"); });
  return 0;
}
