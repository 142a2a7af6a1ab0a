// Sections of documents in reStructuredText, and questions that they answer: conversations that somebody has
// written already, for fine-tuning where no other is at hand.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace longreach::data {

struct Section {
  std::string document;   // its title
  std::string heading;    // of the section, which is not the title
  std::string paragraph;  // the first below it, on one line
};

// Sections whose first paragraph is prose: no list, table, literal or directive, 80 to 600 bytes, ends with a
// full stop. Inline markup is taken away (`x`_, ``x``, *x*, :role:`x`), but not the words.
std::vector<Section> sections_of(const std::string& document);

struct Exchange {
  std::string question, answer;
};

// A question for a section, in one of several wordings by `draw`, and its paragraph.
Exchange exchange_of(const Section& section, uint64_t draw);

}  // namespace longreach::data
