// Texts with the ids that the libraries of Hugging Face and SentencePiece give them
// (files/make_tokenizer_files.py).
#pragma once
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "data/tokenizers/tokenizer.h"

namespace longreach::data::test {

// Every file of folder/tokenizer_cases.json, loaded, encodes and decodes every text as its library did.
inline void expect_cases(const std::string& folder) {
  std::ifstream file(folder + "/tokenizer_cases.json");
  const auto cases = nlohmann::json::parse(file);
  ASSERT_GE(cases.size(), 10u);
  for (const auto& [name, list] : cases.items()) {
    const auto tokenizer = load_tokenizer(folder + "/" + name);
    ASSERT_GE(list.size(), 40u);
    for (const auto& item : list) {
      const auto text = item["text"].get<std::string>();
      const auto ids = item["ids"].get<std::vector<Token>>();
      EXPECT_EQ(tokenizer->encode(text), ids) << name << " on " << item["text"];
      EXPECT_EQ(nlohmann::json(tokenizer->decode(ids))
                    .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace),
                item["decoded"].dump())
          << name << " on " << item["text"];
    }
  }
}

inline std::string random_bytes(uint64_t& state, size_t most) {
  std::string bytes;
  const auto next = [&state] {
    return state = state * 6364136223846793005u + 1442695040888963407u, state >> 33;
  };
  for (size_t count = next() % (most + 1); count > 0; --count) bytes += static_cast<char>(next() & 255);
  return bytes;
}

}  // namespace longreach::data::test
