// The filters, tests, functions and methods that chat templates use, as Jinja, transformers and Python have
// them.
#pragma once
#include <ctime>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "data/chat_template/value.h"

namespace longreach::data::jinja {

struct Session {
  Work work;
  std::tm now;  // what strftime_now writes
};

struct Arguments {
  std::string what;  // "filter `join`", for messages
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;

  // By the names of the parameters, in their order; null where one is not given. They live as long as these
  // arguments. Throws Fault for others.
  std::vector<const Value*> bind(std::initializer_list<std::string_view> names) const&;
  std::vector<const Value*> bind(std::initializer_list<std::string_view> names) const&& = delete;
};

using Test = bool (*)(Session&, const Value& self, const Arguments&);

// Null where there is none of the name; a filter has the value before it for `self`.
Builtin find_filter(std::string_view name);
Test find_test(std::string_view name);
Builtin find_function(std::string_view name);  // self is not used
std::string filter_names();
std::string test_names();

// Whether Python's value has an attribute of the name, known here or not.
bool is_method(const Value& self, std::string_view name);
// self.name(arguments). Throws Fault for methods that are not known here.
Value call_method(Session& session, const Value& self, std::string_view name, const Arguments& arguments);

// value[key] for texts, numbers and mappings; what is not there is undefined. Throws Fault where value is.
Value item_of(Session& session, const Value& value, const Value& key);

}  // namespace longreach::data::jinja
