#include "tests/ptx/interpreter/types.h"

#include <array>
#include <utility>

namespace longreach::ptx {

Type type_named(std::string_view name) {
  static constexpr std::array<std::pair<std::string_view, Type>, 20> kNames{
      {{"pred", Type::pred}, {"u8", Type::u8},     {"s8", Type::s8},       {"b8", Type::b8},
       {"u16", Type::u16},   {"s16", Type::s16},   {"b16", Type::b16},     {"f16", Type::f16},
       {"bf16", Type::bf16}, {"u32", Type::u32},   {"s32", Type::s32},     {"b32", Type::b32},
       {"f32", Type::f32},   {"tf32", Type::tf32}, {"f16x2", Type::f16x2}, {"bf16x2", Type::bf16x2},
       {"u64", Type::u64},   {"s64", Type::s64},   {"b64", Type::b64},     {"f64", Type::f64}}};
  for (const auto& [text, type] : kNames) {
    if (text == name) return type;
  }
  return Type::none;
}

unsigned size_of(Type type) {
  switch (type) {
    case Type::none:
    case Type::pred:
      return 0;
    case Type::u8:
    case Type::s8:
    case Type::b8:
      return 1;
    case Type::u16:
    case Type::s16:
    case Type::b16:
    case Type::f16:
    case Type::bf16:
      return 2;
    case Type::u64:
    case Type::s64:
    case Type::b64:
    case Type::f64:
      return 8;
    default:
      return 4;
  }
}

}  // namespace longreach::ptx
