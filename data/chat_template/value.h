// What the variables of a chat template hold: Python's values, as far as templates meet them. Nothing but a
// namespace can be changed once it is made.
#pragma once
#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "core/error.h"

namespace longreach::data::jinja {

// What goes wrong in a template, without its place, which the interpreter adds.
struct Fault : DataError {
  using DataError::DataError;
};

// How much a rendering may still do, in bytes and steps together: it bounds time and memory of any template.
class Work {
 public:
  explicit Work(size_t limit) : left_(limit) {}
  void spend(size_t amount) {
    check<Fault>(amount <= left_, "it works without end, or writes more than a chat template may");
    left_ -= amount;
  }

 private:
  size_t left_;
};

struct Undefined {
  std::string name;  // of what is not there
};
struct None {};
struct Sequence;
struct Mapping;
struct Namespace;
struct LoopState;
struct MacroStatement;
struct Session;
struct Arguments;
struct Value;
using Builtin = Value (*)(Session&, const Value& self, const Arguments&);
struct Function {  // one of ours
  Builtin call;
};

using Text = std::shared_ptr<const std::string>;

struct Value {
  std::variant<Undefined, None, bool, int64_t, double, Text, std::shared_ptr<const Sequence>,
               std::shared_ptr<const Mapping>, std::shared_ptr<Namespace>, std::shared_ptr<LoopState>,
               const MacroStatement*, Function>
      held;

  template <class T>
  const T* get() const {
    return std::get_if<T>(&held);
  }
  const std::string* text() const;
  const Sequence* sequence() const;
  const Mapping* mapping() const;
  bool undefined() const { return get<Undefined>() != nullptr; }
  bool none() const { return get<None>() != nullptr; }
};

struct Sequence {
  // view: what dict.items(), keys() and values() give; generator: what map, select and the like give, which
  // can be gone through once.
  enum class Form { list, tuple, range, view, generator };
  Form form = Form::list;
  std::vector<Value> items;
  int depth = 1;
  mutable bool used = false;  // of a generator
};

struct Mapping {
  std::vector<std::pair<std::string, Value>> items;  // in the order of their making
  int depth = 1;
  const Value* find(std::string_view key) const;
};

struct Namespace {
  std::vector<std::pair<std::string, Value>> items;
  const Value* find(std::string_view key) const;
  void set(const std::string& key, Value value);
};

struct LoopState {
  std::vector<Value> items;
  size_t index = 0;
};

Value make_text(Work& work, std::string text);
// Throw Fault where an item is no plain value (a namespace, a macro), or nested too deeply.
Value make_sequence(Work& work, std::vector<Value> items, Sequence::Form form = Sequence::Form::list);
Value make_mapping(Work& work, std::vector<std::pair<std::string, Value>> items);
Value from_json(Work& work, const nlohmann::ordered_json& json);

// "a string", "a list", "nothing (`x` is not defined)": for messages.
std::string kind_of(const Value& value);
bool is_true(const Value& value);
// Python's ==.
bool equal(Work& work, const Value& a, const Value& b);
// -1, 0, 1, or 2 for a number that is none; numbers and texts have an order.
int order_of(const Value& a, const Value& b);
// Python's `in`.
bool contains(Work& work, const Value& container, const Value& item);
// What a loop goes through: items, keys, characters.
std::vector<Value> iterate(Work& work, const Value& value);
// Python's len().
int64_t length_of(Work& work, const Value& value);
// A whole number, true and false being 1 and 0. Throws Fault naming `what`.
int64_t integer_of(const Value& value, std::string_view what);
// Throws Fault naming `what`.
const std::string& text_of(const Value& value, std::string_view what);

}  // namespace longreach::data::jinja
