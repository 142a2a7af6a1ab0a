// How a config struct names its keys, once, for parsing, printing, help and "did you mean".
//
// A config is a struct with defaults and one function:
//
//   struct SlidingConfig {
//     static constexpr std::string_view kind = "sliding";
//     int64_t window = 4096;
//     void fields(FieldVisitor& visit) {
//       visit.field("window", window,
//                   {.help = "keys a query sees, itself included", .allowed = at_least(1)});
//     }
//   };
//
// A visitor reads the current value (printing, help) or replaces it (parsing). The default of a key is the
// value in a default-constructed config.
#pragma once
#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace longreach {

struct IntRange {
  int64_t low = std::numeric_limits<int64_t>::min(), high = std::numeric_limits<int64_t>::max();
};
struct RealRange {
  double low = -std::numeric_limits<double>::infinity(), high = std::numeric_limits<double>::infinity();
  bool open_low = false;  // low itself is not allowed
};
struct Choices {
  std::vector<std::string> names;
};
using Allowed = std::variant<std::monostate, IntRange, RealRange, Choices>;

inline Allowed at_least(int64_t low) { return IntRange{low}; }
inline Allowed between(int64_t low, int64_t high) { return IntRange{low, high}; }
inline Allowed real_between(double low, double high) { return RealRange{low, high}; }
inline Allowed positive_real() { return RealRange{0, std::numeric_limits<double>::infinity(), true}; }
inline Allowed one_of(std::vector<std::string> names) { return Choices{std::move(names)}; }

struct Field {
  std::string help;       // what it is, its unit, and the source of the default
  Allowed allowed = {};   // applies to each element of a list
  bool required = false;  // the key must be present
};

class FieldVisitor {
 public:
  virtual ~FieldVisitor() = default;
  virtual void field(std::string_view name, bool& value, const Field& about) = 0;
  virtual void field(std::string_view name, int64_t& value, const Field& about) = 0;
  virtual void field(std::string_view name, double& value, const Field& about) = 0;
  virtual void field(std::string_view name, std::string& value, const Field& about) = 0;
  virtual void field(std::string_view name, std::vector<int64_t>& value, const Field& about) = 0;
  virtual void field(std::string_view name, std::vector<double>& value, const Field& about) = 0;
  virtual void field(std::string_view name, std::vector<std::string>& value, const Field& about) = 0;

  // Says that the value just visited cannot be (a rule that spans keys, a kind that does not exist): a parser
  // adds file, line and key path.
  [[noreturn]] virtual void reject(std::string_view name, const std::string& why) = 0;

  // A sub-table: its keys are visited by `inside`, under `name`.
  virtual void section(std::string_view name, std::string_view help,
                       const std::function<void(FieldVisitor&)>& inside) = 0;
  // An array of tables ([[model.attention]]). A parser calls `append` once a table, with a visitor over that
  // table's keys; a printer calls `nth(i, visitor)` for i < count.
  virtual void tables(std::string_view name, std::string_view help,
                      const std::function<void(FieldVisitor&)>& append, size_t count,
                      const std::function<void(size_t, FieldVisitor&)>& nth) = 0;
};

// "one of a, b, c", "an integer >= 1", "a number in (0, 1]", ...; empty when anything goes.
std::string describe(const Allowed& allowed);

}  // namespace longreach
