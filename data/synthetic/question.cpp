// The wording of the tasks. Landmark's and RULER's are kept, so that results can be set beside theirs.
#include "data/synthetic/question.h"

#include <array>

#include "core/error.h"

namespace longreach::data {
namespace {

constexpr std::array<std::string_view, 48> kAdjectives{
    "able",   "ancient", "bitter", "brave",  "bright",  "calm",   "clever", "cold",   "curious", "distant",
    "early",  "eager",   "fair",   "famous", "fancy",   "fierce", "gentle", "golden", "grand",   "happy",
    "hidden", "hollow",  "honest", "humble", "icy",     "jolly",  "kind",   "late",   "lively",  "lonely",
    "loud",   "lucky",   "mellow", "mighty", "modern",  "narrow", "noble",  "odd",    "patient", "plain",
    "proud",  "quiet",   "rare",   "silent", "similar", "tender", "vast",   "wise"};
constexpr std::array<std::string_view, 48> kNouns{
    "anchor", "apple",  "arrow",  "basket", "bell",   "bridge", "button",  "candle", "canyon", "castle",
    "cloud",  "copper", "desert", "drum",   "eagle",  "engine", "feather", "forest", "garden", "hammer",
    "harbor", "island", "jacket", "kettle", "ladder", "lake",   "lantern", "lion",   "map",    "marble",
    "mirror", "needle", "ocean",  "orange", "paper",  "pepper", "pillow",  "planet", "river",  "rocket",
    "saddle", "shadow", "silver", "spoon",  "temple", "tiger",  "violin",  "window"};

template <size_t N>
std::string any_of(const std::array<std::string_view, N>& words, Draws& draws) {
  return std::string(words[draws.below(N)]);
}

// The first digit is never 0.
std::string number_of_digits(int digits, Draws& draws) {
  uint64_t least = 1;
  for (int i = 1; i < digits; ++i) least *= 10;
  return std::to_string(least + draws.below(9 * least));
}

Needle draw_passkey(Draws& draws) {
  const std::string key = number_of_digits(5, draws);
  return {.introduction =
              "There is an important info hidden inside a lot of irrelevant text. Find it and memorize them. "
              "I will quiz you about the important information there.",
          .fact = text("The pass key is ", key, ". Remember it. ", key, " is the pass key."),
          .own_line = true,
          .question = "What is the pass key?",
          .beginning = "The pass key is",
          .answer = " " + key,
          .unique = {key}};
}

Needle draw_key_and_value(Draws& draws) {
  const std::string adjective = any_of(kAdjectives, draws);
  const std::string key = adjective + "-" + any_of(kNouns, draws), value = number_of_digits(7, draws);
  return {.introduction =
              "A special magic number is hidden within the following text. Make sure to memorize it. I will "
              "quiz you about the number afterwards.",
          .fact = text("One of the special magic numbers for ", key, " is: ", value, "."),
          .question = text("What is the special magic number for ", key, " mentioned in the provided text?"),
          .beginning = text("The special magic number for ", key, " mentioned in the provided text is"),
          .answer = " " + value,
          .unique = {key, value}};
}

}  // namespace

Needle draw_needle(std::string_view task, Draws& draws) {
  return task == "passkey" ? draw_passkey(draws) : draw_key_and_value(draws);
}

std::string draw_words(int64_t count, Draws& draws) {
  std::string words;
  for (int64_t i = 0; i < count; ++i) words += (i > 0 ? " " : "") + any_of(kNouns, draws);
  return words;
}

}  // namespace longreach::data
