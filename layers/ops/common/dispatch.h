// Turns a run-time value into a compile-time one, without macros.
#pragma once
#include <string>
#include <type_traits>

#include "core/error.h"

namespace longreach {

// Calls f(std::integral_constant<int, V>{}) for the V in Values equal to `value`.
// Throws ShapeError that names `what`, the value, and the values that are built in.
template <int... Values, class F>
void dispatch(int64_t value, std::string_view what, F&& f) {
  const bool found = ((value == Values && (f(std::integral_constant<int, Values>{}), true)) || ...);
  if (found) return;
  std::string built;
  ((built += " " + std::to_string(Values)), ...);
  throw ShapeError(text(what, " = ", value, " is not built in; built:", built));
}

}  // namespace longreach
