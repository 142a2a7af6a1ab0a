// A config of every type of key.
#include <vector>

#include "core/config.h"
#include "tests/fuzz/fuzz_input.h"

namespace {

struct Section {
  bool flag = false;
  int64_t count = 1;
  double rate = 0.5;
  std::string word = "one";
  std::vector<int64_t> counts;
  std::vector<double> rates;
  std::vector<std::string> words;
  void fields(longreach::FieldVisitor& visit) {
    using longreach::between, longreach::one_of, longreach::real_between;
    visit.field("flag", flag, {});
    visit.field("count", count, {.allowed = between(0, 1000)});
    visit.field("rate", rate, {.allowed = real_between(0, 1)});
    visit.field("word", word, {.allowed = one_of({"one", "two"})});
    visit.field("counts", counts, {.allowed = between(0, 1000)});
    visit.field("rates", rates, {});
    visit.field("words", words, {});
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace longreach;
  fuzz::expect_user_error([&] {
    Section section;
    ConfigDocument::from_text(fuzz::view(data, size), "fuzz.toml").read(fields_of(section));
    to_toml(fields_of(section));
  });
  return 0;
}
