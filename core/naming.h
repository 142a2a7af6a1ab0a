// Says which file or key an error is about, where the code that finds it cannot know.
#pragma once
#include <string>
#include <utility>

#include "core/error.h"

namespace longreach {

// What f gives. An E that it throws becomes an E whose message begins with `prefix`.
template <class E, class F>
auto prefixing(const std::string& prefix, F&& f) -> decltype(std::forward<F>(f)()) {
  try {
    return std::forward<F>(f)();
  } catch (const E& error) {
    throw E(one_line(text(prefix, error.what())));
  }
}

// The same with `name` and a colon.
template <class E, class F>
auto naming(const std::string& name, F&& f) -> decltype(std::forward<F>(f)()) {
  return prefixing<E>(name + ": ", std::forward<F>(f));
}

}  // namespace longreach
