// What Jinja has written, beside what is written here.
#pragma once
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "core/error.h"
#include "data/chat_template/chat_template.h"

namespace longreach::data::test {

// With the marks that make_vectors.py puts around what the assistant says.
inline std::string with_marks(const ChatTemplate::Rendered& rendered) {
  std::string text = rendered.text;
  for (auto span = rendered.generated.rbegin(); span != rendered.generated.rend(); ++span) {
    text.insert(span->second, "\xEE\x80\x81");
    text.insert(span->first, "\xEE\x80\x80");
  }
  return text;
}

// Compares with a file of make_vectors.py; returns how many renderings it holds.
inline size_t expect_renderings(const std::string& path) {
  std::ifstream file(path);
  const auto cases = nlohmann::ordered_json::parse(file);
  for (const auto& row : cases.at("rendered")) {
    const auto name = row[0].get<std::string>();
    const auto source = cases.at("templates").at(name).get<std::string>();
    const auto& variables = cases.at("variables").at(row[1].get<size_t>());
    const std::string expected = row[2].is_null() ? "(refused)" : row[2].get<std::string>();
    std::string found, why;
    try {
      found = with_marks(ChatTemplate(source).render(variables));
    } catch (const DataError& error) {
      found = "(refused)";
      why = error.what();
    }
    EXPECT_EQ(found, expected) << name << " " << why << "\n" << source << "\n" << variables.dump();
  }
  return cases.at("rendered").size();
}

}  // namespace longreach::data::test
