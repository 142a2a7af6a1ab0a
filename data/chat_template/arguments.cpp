// Arguments by place and by name.
#include <algorithm>

#include "data/chat_template/builtins.h"
#include "data/chat_template/characters.h"

namespace longreach::data::jinja {

std::vector<const Value*> Arguments::bind(std::initializer_list<std::string_view> names) const& {
  check<Fault>(positional.size() <= names.size(), what, " has ", positional.size(),
               " arguments, allowed are ", names.size());
  std::vector<const Value*> bound(names.size());
  for (size_t i = 0; i < positional.size(); ++i) bound[i] = &positional[i];
  for (const auto& [name, value] : named) {
    const auto found = std::find(names.begin(), names.end(), name);
    check<Fault>(found != names.end(), what, " has no argument `", one_line(name, 60), "`");
    const Value*& place = bound[static_cast<size_t>(found - names.begin())];
    check<Fault>(place == nullptr, what, " has the argument `", name, "` twice");
    place = &value;
  }
  return bound;
}

Value item_of(Session& session, const Value& value, const Value& key) {
  check<Fault>(!value.undefined(), "`", value.undefined() ? value.get<Undefined>()->name : "",
               "` is not defined, and has no items");
  const std::string name = key.text() ? *key.text() : "that item";
  if (const auto* mapping = value.mapping(); mapping && key.text()) {
    session.work.spend(8 * mapping->items.size());
    if (const Value* found = mapping->find(name)) return *found;
  }
  if (key.text()) {
    check<Fault>(!is_method(value, name), "the method `", name, "` of ", kind_of(value),
                 " is not called, which is not supported");
    return {Undefined{name}};
  }
  const bool indexed = value.text() || (value.sequence() && value.sequence()->form <= Sequence::Form::range);
  if (!indexed) return {Undefined{name}};
  int64_t index = integer_of(key, "an index");
  const int64_t length = length_of(session.work, value);
  if (index < 0) index += length;
  if (index < 0 || index >= length) return {Undefined{text("item ", integer_of(key, ""))}};
  if (value.sequence()) return value.sequence()->items[static_cast<size_t>(index)];
  const std::string& characters = *value.text();
  size_t at = 0;
  for (; index > 0; --index) at += char_size(characters, at);
  return make_text(session.work, characters.substr(at, char_size(characters, at)));
}

}  // namespace longreach::data::jinja
