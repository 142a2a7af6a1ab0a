// Python's rules of truth, equality and order.
#include "data/chat_template/value.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "data/chat_template/characters.h"

namespace longreach::data::jinja {
namespace {

constexpr int kMaxDepth = 100;

using Items = std::vector<std::pair<std::string, Value>>;

const Value* find_in(const Items& items, std::string_view key) {
  const auto found =
      std::find_if(items.begin(), items.end(), [&](const auto& item) { return item.first == key; });
  return found == items.end() ? nullptr : &found->second;
}

int depth_of(const Value& value) {
  const bool plain = !value.get<std::shared_ptr<Namespace>>() && !value.get<std::shared_ptr<LoopState>>() &&
                     !value.get<const MacroStatement*>() && !value.get<Function>();
  check<Fault>(plain, kind_of(value), " inside of another value is not supported");
  const int depth = value.sequence() ? value.sequence()->depth : value.mapping() ? value.mapping()->depth : 0;
  check<Fault>(depth < kMaxDepth, "values nested deeper than ", kMaxDepth, " levels");
  return depth;
}

bool is_number(const Value& value) {
  return value.get<bool>() || value.get<int64_t>() || value.get<double>();
}

double real_of(const Value& value) {
  if (const auto* real = value.get<double>()) return *real;
  if (const auto* flag = value.get<bool>()) return *flag ? 1 : 0;
  return static_cast<double>(*value.get<int64_t>());
}

int order_of_numbers(const Value& a, const Value& b) {
  if (!a.get<double>() && !b.get<double>()) {
    const int64_t x = integer_of(a, ""), y = integer_of(b, "");
    return x < y ? -1 : x > y ? 1 : 0;
  }
  const double x = real_of(a), y = real_of(b);
  return x < y ? -1 : x > y ? 1 : x == y ? 0 : 2;
}

bool is_tuple(const Sequence& sequence) { return sequence.form == Sequence::Form::tuple; }

}  // namespace

const std::string* Value::text() const {
  const auto* held_text = get<Text>();
  return held_text ? held_text->get() : nullptr;
}
const Sequence* Value::sequence() const {
  const auto* held_sequence = get<std::shared_ptr<const Sequence>>();
  return held_sequence ? held_sequence->get() : nullptr;
}
const Mapping* Value::mapping() const {
  const auto* held_mapping = get<std::shared_ptr<const Mapping>>();
  return held_mapping ? held_mapping->get() : nullptr;
}

const Value* Mapping::find(std::string_view key) const { return find_in(items, key); }
const Value* Namespace::find(std::string_view key) const { return find_in(items, key); }

void Namespace::set(const std::string& key, Value value) {
  depth_of(value);
  for (auto& [name, held] : items)
    if (name == key) {
      held = std::move(value);
      return;
    }
  items.emplace_back(key, std::move(value));
}

Value make_text(Work& work, std::string text) {
  work.spend(sizeof(Value) + text.size());
  return {std::make_shared<const std::string>(std::move(text))};
}

Value make_sequence(Work& work, std::vector<Value> items, Sequence::Form form) {
  work.spend(sizeof(Sequence) + sizeof(Value) * items.size());
  int depth = 0;
  for (const Value& item : items) depth = std::max(depth, depth_of(item));
  return {std::make_shared<const Sequence>(Sequence{form, std::move(items), depth + 1})};
}

Value make_mapping(Work& work, Items items) {
  int depth = 0;
  work.spend(sizeof(Mapping));
  for (const auto& [key, value] : items) {
    work.spend(sizeof(items[0]) + key.size());
    depth = std::max(depth, depth_of(value));
  }
  return {std::make_shared<const Mapping>(Mapping{std::move(items), depth + 1})};
}

Value from_json(Work& work, const nlohmann::ordered_json& json) {
  using Type = nlohmann::ordered_json::value_t;
  switch (json.type()) {
    case Type::boolean:
      return {json.get<bool>()};
    case Type::number_integer:
      return {json.get<int64_t>()};
    case Type::number_unsigned:
      check<Fault>(json.get<uint64_t>() <= INT64_MAX, "the number ", json.get<uint64_t>(), " is too large");
      return {json.get<int64_t>()};
    case Type::number_float:
      return {json.get<double>()};
    case Type::string: {
      const auto& text = json.get_ref<const std::string&>();
      check<Fault>(is_utf8(text), "the text `", one_line(text, 60), "` is not UTF-8");
      return make_text(work, text);
    }
    case Type::array: {
      std::vector<Value> items;
      for (const auto& item : json) items.push_back(from_json(work, item));
      return make_sequence(work, std::move(items));
    }
    case Type::object: {
      Items items;
      for (const auto& [key, value] : json.items()) items.emplace_back(key, from_json(work, value));
      return make_mapping(work, std::move(items));
    }
    default:
      return {None{}};
  }
}

std::string kind_of(const Value& value) {
  if (const auto* nothing = value.get<Undefined>()) return "nothing (`" + nothing->name + "` is not defined)";
  if (value.none()) return "none";
  if (value.get<bool>()) return "true or false";
  if (value.get<int64_t>()) return "an integer";
  if (value.get<double>()) return "a real number";
  if (value.text()) return "a string";
  if (value.mapping()) return "a mapping";
  if (value.get<std::shared_ptr<Namespace>>()) return "a namespace";
  if (value.get<std::shared_ptr<LoopState>>()) return "a loop";
  if (!value.sequence()) return "a function";
  switch (value.sequence()->form) {
    case Sequence::Form::list:
      return "a list";
    case Sequence::Form::tuple:
      return "a tuple";
    case Sequence::Form::range:
      return "a range";
    case Sequence::Form::view:
      return "a view of a mapping";
    case Sequence::Form::generator:
      break;
  }
  return "a generator (`| list` makes a list of it)";
}

bool is_true(const Value& value) {
  if (value.undefined() || value.none()) return false;
  if (is_number(value)) return real_of(value) != 0;
  if (const auto* text = value.text()) return !text->empty();
  if (const auto* list = value.sequence())
    return list->form == Sequence::Form::generator || !list->items.empty();
  if (const auto* mapping = value.mapping()) return !mapping->items.empty();
  return true;
}

bool equal(Work& work, const Value& a, const Value& b) {
  work.spend(32);
  if (is_number(a) && is_number(b)) return order_of_numbers(a, b) == 0;
  if (a.text() && b.text()) {
    work.spend(std::min(a.text()->size(), b.text()->size()) / 8);
    return *a.text() == *b.text();
  }
  if (a.sequence() && b.sequence()) {
    const Sequence &x = *a.sequence(), &y = *b.sequence();
    check<Fault>(x.form <= Sequence::Form::tuple && y.form <= Sequence::Form::tuple, "comparing ", kind_of(a),
                 " with ", kind_of(b), " is not supported");
    if (is_tuple(x) != is_tuple(y) || x.items.size() != y.items.size()) return false;
    for (size_t i = 0; i < x.items.size(); ++i)
      if (!equal(work, x.items[i], y.items[i])) return false;
    return true;
  }
  if (a.mapping() && b.mapping()) {
    if (a.mapping()->items.size() != b.mapping()->items.size()) return false;
    for (const auto& [key, value] : a.mapping()->items) {
      work.spend(8 * b.mapping()->items.size());
      const Value* other = b.mapping()->find(key);
      if (!other || !equal(work, value, *other)) return false;
    }
    return true;
  }
  return (a.none() && b.none()) || (a.undefined() && b.undefined());
}

int order_of(const Value& a, const Value& b) {
  if (a.text() && b.text()) return *a.text() < *b.text() ? -1 : *a.text() == *b.text() ? 0 : 1;
  check<Fault>(is_number(a) && is_number(b), "comparing ", kind_of(a), " with ", kind_of(b),
               " is not supported, expected two numbers or two strings");
  return order_of_numbers(a, b);
}

bool contains(Work& work, const Value& container, const Value& item) {
  if (container.text()) {
    const std::string& part = text_of(item, "what is sought in a string");
    work.spend(container.text()->size() / 8 + 1);
    return container.text()->find(part) != std::string::npos;
  }
  if (const auto* mapping = container.mapping()) {
    work.spend(8 * mapping->items.size());
    return item.text() && mapping->find(*item.text());
  }
  for (const Value& one : iterate(work, container))
    if (equal(work, one, item)) return true;
  return false;
}

std::vector<Value> iterate(Work& work, const Value& value) {
  if (value.undefined()) return {};
  std::vector<Value> items;
  if (const auto* list = value.sequence()) {
    work.spend(sizeof(Value) * list->items.size());
    check<Fault>(!list->used,
                 "a generator (what map, select and the like give) is gone through twice; "
                 "`| list` makes a list of it");
    list->used = list->form == Sequence::Form::generator;
    return list->items;
  }
  if (const auto* mapping = value.mapping()) {
    for (const auto& item : mapping->items) items.push_back(make_text(work, item.first));
    return items;
  }
  check<Fault>(value.text(), "going through ", kind_of(value), " is not possible");
  const std::string_view text = *value.text();
  for (size_t at = 0; at < text.size();) {
    const size_t size = char_size(text, at);
    items.push_back(make_text(work, std::string(text.substr(at, size))));
    at += size;
  }
  return items;
}

int64_t length_of(Work& work, const Value& value) {
  if (value.undefined()) return 0;
  if (const auto* text = value.text()) {
    work.spend(text->size() / 8 + 1);
    return count_chars(*text);
  }
  if (const auto* mapping = value.mapping()) return static_cast<int64_t>(mapping->items.size());
  const auto* list = value.sequence();
  check<Fault>(list && list->form != Sequence::Form::generator, kind_of(value), " has no length");
  return static_cast<int64_t>(list->items.size());
}

int64_t integer_of(const Value& value, std::string_view what) {
  if (const auto* flag = value.get<bool>()) return *flag ? 1 : 0;
  check<Fault>(value.get<int64_t>(), what, " is ", kind_of(value), ", expected an integer");
  return *value.get<int64_t>();
}

const std::string& text_of(const Value& value, std::string_view what) {
  check<Fault>(value.text(), what, " is ", kind_of(value), ", expected a string");
  return *value.text();
}

}  // namespace longreach::data::jinja
