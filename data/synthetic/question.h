// What the synthetic tasks ask: the words around a text, the fact that is hidden in it, and its answer.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "data/random.h"

namespace longreach::data {

// Numbers that depend on the seed and the sample alone.
class Draws {
 public:
  Draws(uint64_t seed, uint64_t stream) : seed_(seed), stream_(stream) {}
  uint64_t below(uint64_t n) { return scale_to(random_bits(seed_, stream_, counter_++), n); }

 private:
  uint64_t seed_, stream_, counter_ = 0;
};

// A fact hidden in a text, and the question for it.
struct Needle {
  std::string introduction;         // before the text
  std::string fact;                 // in it
  bool own_line = false;            // the fact stands between line feeds, not between spaces
  std::string question;             // behind it
  std::string beginning;            // of the reply, which the answer continues
  std::string answer;               // with the space that leads to it
  std::vector<std::string> unique;  // words of the fact that the text around it must not hold
};

// "passkey" (the text of Landmark Attention and LongLoRA, with a pass key of five digits) or "niah" (RULER's
// niah_single: a key of two words and a number of seven digits).
Needle draw_needle(std::string_view task, Draws& draws);

// Words to be copied.
std::string draw_words(int64_t count, Draws& draws);

}  // namespace longreach::data
