// Functions that a template may call by their names.
#include <algorithm>
#include <array>

#include "data/chat_template/builtins.h"

namespace longreach::data::jinja {
namespace {

constexpr int64_t kLongestRange = 100000;  // as in Jinja's sandbox

Value call_range(Session& session, const Value&, const Arguments& arguments) {
  const auto bound = arguments.bind({"start", "stop", "step"});
  check<Fault>(bound[0] && arguments.named.empty(), "range expects one to three integers");
  int64_t start = 0, stop = integer_of(*bound[0], "an argument of range"), step = 1;
  if (bound[1]) {
    start = stop;
    stop = integer_of(*bound[1], "an argument of range");
  }
  if (bound[2]) step = integer_of(*bound[2], "an argument of range");
  check<Fault>(step != 0, "the step of range is 0");
  std::vector<Value> items;
  for (int64_t i = start; step > 0 ? i < stop : i > stop;) {
    check<Fault>(static_cast<int64_t>(items.size()) < kLongestRange, "range is longer than ", kLongestRange);
    items.push_back({i});
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return make_sequence(session.work, std::move(items), Sequence::Form::range);
}

Value call_namespace(Session& session, const Value&, const Arguments& arguments) {
  check<Fault>(arguments.positional.empty(), "namespace with arguments that have no names is not supported");
  auto made = std::make_shared<Namespace>();
  for (const auto& [name, value] : arguments.named) {
    session.work.spend(64);
    made->set(name, value);
  }
  return {made};
}

Value call_dict(Session& session, const Value&, const Arguments& arguments) {
  check<Fault>(arguments.positional.empty(), "dict with arguments that have no names is not supported");
  return make_mapping(session.work, arguments.named);
}

Value call_raise_exception(Session&, const Value&, const Arguments& arguments) {
  const auto bound = arguments.bind({"message"});
  check<Fault>(bound[0], "raise_exception expects a message");
  throw Fault(
      text("the template refuses the conversation: ", text_of(*bound[0], "the message of raise_exception")));
}

Value call_strftime_now(Session& session, const Value&, const Arguments& arguments) {
  const auto bound = arguments.bind({"format"});
  check<Fault>(bound[0], "strftime_now expects a format");
  const std::string format = text_of(*bound[0], "the format of strftime_now") + " ";  // never empty
  std::array<char, 1024> buffer{};
  const size_t size = std::strftime(buffer.data(), buffer.size(), format.c_str(), &session.now);
  check<Fault>(size > 0, "the format of strftime_now is too long");
  return make_text(session.work, std::string(buffer.data(), size - 1));
}

constexpr std::array<std::pair<std::string_view, Builtin>, 5> kFunctions{
    {{"dict", call_dict},
     {"namespace", call_namespace},
     {"raise_exception", call_raise_exception},
     {"range", call_range},
     {"strftime_now", call_strftime_now}}};

}  // namespace

Builtin find_function(std::string_view name) {
  const auto found =
      std::find_if(kFunctions.begin(), kFunctions.end(), [&](const auto& one) { return one.first == name; });
  return found == kFunctions.end() ? nullptr : found->second;
}

}  // namespace longreach::data::jinja
