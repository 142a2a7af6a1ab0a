#include "train/program/mechanism_table.h"

#include <algorithm>
#include <vector>

#include "checkpoints/formats/gguf/gguf_export.h"
#include "checkpoints/formats/hugging_face_family.h"
#include "checkpoints/formats/longreach_code.h"
#include "checkpoints/formats/modeling_sources.h"
#include "core/error.h"
#include "layers/attention/mechanisms.h"

namespace longreach {
namespace {

// NAME in a file's name stands for the mechanism's.
struct Column {
  const char* title;
  const char* file;
};
constexpr Column kColumns[] = {
    {"formula", "reference.cpp"},        {"fused", "NAME.cpp"},           {"decoding", "decode.cpp"},
    {"context parallel", "context.cpp"}, {"authors' names", "names.cpp"}, {"vectors", "verify.cpp"},
};

// What the build found: NAME/FILE.cpp of each mechanism, with a space around each.
constexpr std::string_view kFiles = " " LONGREACH_MECHANISM_FILES " ";

std::string cell(const std::string& kind, std::string file) {
  const std::string own = file == "NAME.cpp" ? kind + ".cpp" : file;
  if (kFiles.find(text(" ", kind, "/", own, " ")) == std::string_view::npos) return " |";
  const std::string link =
      text(" [", own.substr(0, own.size() - 4), "](layers/attention/", kind, "/", own, ")");
  // What is claimed of several ranks, and the test of it.
  return own == "context.cpp" ? text(link, ", [test](tests/layers/attention/", kind, "/context_test.cpp) |")
                              : link + " |";
}

bool goes_into_gguf(const AttentionConfig& config) {
  ModelConfig model;
  model.attention = {{.config = config}};
  try {
    gguf_architecture(model);
    return true;
  } catch (const ConfigError&) {
    return false;
  }
}

// What models with such layers are elsewhere: what `export` and `import` ask before they write and read.
std::string elsewhere(const AttentionConfig& config) {
  const std::string kind(kind_of(config));
  std::vector<std::string> names;
  for (const HuggingFaceFamily& family : hugging_face_families())
    if (std::find(family.kinds.begin(), family.kinds.end(), kind) != family.kinds.end())
      names.push_back(family.type);
  if (goes_into_gguf(config)) names.push_back("gguf");
  if (gate_of(config)) names.push_back("gates");
  if (modeling_sources().count(kind) > 0)
    names.push_back(text("[", kLongreachType, "](layers/attention/", kind, "/modeling.py)"));
  return text(" ", join(names), " |");
}

std::string row(const AttentionConfig& config) {
  const std::string kind(kind_of(config));
  std::string line =
      text("| [", kind, "](layers/attention/", kind,
           "/README.md): ", std::visit([](const auto& options) { return options.summary; }, config), " |");
  for (const Column& column : kColumns) line += cell(kind, column.file);
  return line + elsewhere(config) + text(" [tests](tests/layers/attention/", kind, ") |\n");
}

}  // namespace

std::string mechanism_table() {
  std::string head = "| mechanism |", rule = "|---|", blanks;
  for (const Column& column : kColumns) {
    head += text(" ", column.title, " |");
    rule += "---|";
    blanks += " |";
  }
  std::string table = head + " export and import | tests |\n" + rule + "---|---|\n";
  const auto all = all_attention_configs();
  std::vector<std::string_view> families;
  for (const AttentionConfig& config : all)
    if (std::find(families.begin(), families.end(), family_of(config)) == families.end())
      families.push_back(family_of(config));
  for (const std::string_view family : families) {
    table += text("| **", family, "** |", blanks, " | |\n");
    for (const AttentionConfig& config : all)
      if (family_of(config) == family) table += row(config);
  }
  return table;
}

}  // namespace longreach
