// From source and variables to text, within bounds.
#include "data/chat_template/chat_template.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "data/chat_template/interpreter.h"
#include "data/chat_template/parser.h"

namespace longreach::data {
namespace {

constexpr size_t kLongestTemplate = size_t{1} << 20;
constexpr size_t kWork = size_t{1} << 26, kWorkPerByte = 256;

size_t bytes_of(const nlohmann::ordered_json& json) {
  size_t bytes = 16;
  if (json.is_string()) return bytes + json.get_ref<const std::string&>().size();
  if (json.is_object())
    for (const auto& [key, value] : json.items()) bytes += key.size() + bytes_of(value);
  if (json.is_array())
    for (const auto& value : json) bytes += bytes_of(value);
  return bytes;
}

bool has_generation(const jinja::Block& block) {
  return std::any_of(block.begin(), block.end(), [](const auto& statement) {
    return statement->kind == jinja::Statement::Kind::generation || has_generation(statement->body) ||
           has_generation(statement->otherwise);
  });
}

}  // namespace

struct ChatTemplate::Tree {
  jinja::Block block;
};

ChatTemplate::ChatTemplate(std::string_view source, std::string name)
    : name_(std::move(name)), tree_(std::make_unique<Tree>()) {
  check<DataError>(source.size() <= kLongestTemplate, name_, ": has ", source.size(), " bytes, allowed are ",
                   kLongestTemplate);
  try {
    tree_->block = jinja::parse_template(source);
  } catch (const DataError& error) {
    throw DataError(one_line(text(name_, ", ", error.what())));
  }
}

ChatTemplate::~ChatTemplate() = default;
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;

bool ChatTemplate::marks_generation() const { return has_generation(tree_->block); }

ChatTemplate::Rendered ChatTemplate::render(const nlohmann::ordered_json& variables, std::time_t now) const {
  jinja::Session session{jinja::Work(kWork + kWorkPerByte * bytes_of(variables)), {}};
  localtime_r(&now, &session.now);
  jinja::Scope scope;
  try {
    for (const auto& [name, value] : variables.items())
      scope.set(name, jinja::from_json(session.work, value));
  } catch (const jinja::Fault& fault) {
    throw DataError(one_line(text(name_, ": the conversation: ", fault.what())));
  }
  jinja::Interpreter interpreter(session, std::move(scope));
  try {
    interpreter.run(tree_->block);
  } catch (const jinja::Fault& fault) {
    throw DataError(one_line(text(name_, ", line ", interpreter.line(), ": ", fault.what())));
  }
  return {std::move(interpreter.text()), std::move(interpreter.generated())};
}

}  // namespace longreach::data
