// Errors with context. Everything the project throws derives from Error; the program turns a UserError into
// one line on stderr and exit code 2, and anything else into exit code 1.
#pragma once
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace longreach {

struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// The user can mend it: a key, a file, a shape, an option. The message names it, what was found, what is
// allowed.
struct UserError : Error {
  using Error::Error;
};
struct ConfigError : UserError {
  using UserError::UserError;
};
struct DataError : UserError {
  using UserError::UserError;
};
struct CheckpointError : UserError {
  using UserError::UserError;
};
struct ShapeError : UserError {
  using UserError::UserError;
};
struct DtypeError : UserError {
  using UserError::UserError;
};

// Something went wrong while training (a non-finite gradient, a dead rank): exit code 1.
struct TrainingError : Error {
  using Error::Error;
};

// Joins anything printable.
template <class... Parts>
std::string text(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

// check<DataError>(file.good(), path, ": cannot be read") throws when the condition does not hold.
template <class E = UserError, class... Parts>
void check(bool condition, const Parts&... parts) {
  if (!condition) throw E(text(parts...));
}

// A message fit for one terminal line: control characters become '?', at most `limit` characters, whatever a
// hostile file put into it.
std::string one_line(std::string_view message, size_t limit = 1000);

// The candidate nearest to `word` by edit distance; empty when none is near enough to suggest.
std::string nearest(std::string_view word, const std::vector<std::string>& candidates);

// ", did you mean `x`?" or nothing.
std::string did_you_mean(std::string_view word, const std::vector<std::string>& candidates);

// "a, b, c"
std::string join(const std::vector<std::string>& words, std::string_view separator = ", ");

}  // namespace longreach
