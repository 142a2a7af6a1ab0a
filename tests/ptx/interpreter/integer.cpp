// Integer arithmetic: add, sub, mul, mad, div, rem, min, max, abs, neg, sad, dp4a.
#include <algorithm>

#include "tests/ptx/interpreter/decoder.h"
#include "tests/ptx/interpreter/lanes.h"

namespace longreach::ptx {
namespace {

template <class T>
using Unsigned = std::make_unsigned_t<T>;
template <class T>
using Twice = std::conditional_t<
    sizeof(T) == 2, std::conditional_t<std::is_signed_v<T>, int32_t, uint32_t>,
    std::conditional_t<sizeof(T) == 4, std::conditional_t<std::is_signed_v<T>, int64_t, uint64_t>,
                       std::conditional_t<std::is_signed_v<T>, __int128, unsigned __int128>>>;

struct Add {
  template <class T>
  T operator()(T a, T b) const {
    return static_cast<T>(static_cast<Unsigned<T>>(a) + static_cast<Unsigned<T>>(b));
  }
};
struct Subtract {
  template <class T>
  T operator()(T a, T b) const {
    return static_cast<T>(static_cast<Unsigned<T>>(a) - static_cast<Unsigned<T>>(b));
  }
};
struct SaturatingAdd {
  int32_t operator()(int32_t a, int32_t b) const {
    return static_cast<int32_t>(std::clamp<int64_t>(int64_t{a} + b, INT32_MIN, INT32_MAX));
  }
};
struct MultiplyLow {
  template <class T>
  T operator()(T a, T b) const {
    return static_cast<T>(static_cast<uint64_t>(a) * static_cast<uint64_t>(b));
  }
};
struct MultiplyHigh {
  template <class T>
  T operator()(T a, T b) const {
    return static_cast<T>(static_cast<Twice<T>>(a) * static_cast<Twice<T>>(b) >> (8 * sizeof(T)));
  }
};
struct MultiplyWide {
  template <class T>
  Twice<T> operator()(T a, T b) const {
    return static_cast<Twice<T>>(static_cast<Twice<T>>(a) * static_cast<Twice<T>>(b));
  }
};
// Multiply24 keeps the low 32 bits of the product of the low 24 bits.
struct Multiply24 {
  int32_t operator()(int32_t a, int32_t b) const {
    return static_cast<int32_t>(int64_t{static_cast<int32_t>(static_cast<uint32_t>(a) << 8) >> 8} *
                                (static_cast<int32_t>(static_cast<uint32_t>(b) << 8) >> 8));
  }
  uint32_t operator()(uint32_t a, uint32_t b) const { return (a & 0xffffff) * (b & 0xffffff); }
};
template <class Product>
struct ThenAdd {
  template <class T, class U>
  U operator()(T a, T b, U c) const {
    return Add{}(static_cast<U>(Product{}(a, b)), c);
  }
};
// The device returns all ones for a division by zero.
struct Divide {
  template <class T>
  T operator()(T a, T b) const {
    if (b == 0) return static_cast<T>(-1);
    if constexpr (std::is_signed_v<T>) {
      if (b == -1) return static_cast<T>(0 - static_cast<Unsigned<T>>(a));
    }
    return static_cast<T>(a / b);
  }
};
struct Remainder {
  template <class T>
  T operator()(T a, T b) const {
    if (b == 0) return a;
    if constexpr (std::is_signed_v<T>) {
      if (b == -1) return 0;
    }
    return static_cast<T>(a % b);
  }
};
struct Minimum {
  template <class T>
  T operator()(T a, T b) const {
    return std::min(a, b);
  }
};
struct Maximum {
  template <class T>
  T operator()(T a, T b) const {
    return std::max(a, b);
  }
};
struct Negate {
  template <class T>
  T operator()(T a) const {
    return static_cast<T>(0 - static_cast<Unsigned<T>>(a));
  }
};
struct Absolute {
  template <class T>
  T operator()(T a) const {
    return a < 0 ? Negate{}(a) : a;
  }
};
struct SumOfDifferences {
  template <class T>
  T operator()(T a, T b, T c) const {
    return Add{}(c, a < b ? Subtract{}(b, a) : Subtract{}(a, b));
  }
};
template <class A, class B>
struct Dot4 {
  uint32_t operator()(uint32_t a, uint32_t b, uint32_t c) const {
    for (unsigned k = 0; k < 32; k += 8)
      c += static_cast<uint32_t>(int32_t{static_cast<A>(a >> k)} * int32_t{static_cast<B>(b >> k)});
    return c;
  }
};

template <class F>
Handler unary(Type t) {
  switch (t) {
    case Type::s16:
      return map<F, int16_t, int16_t>;
    case Type::s32:
      return map<F, int32_t, int32_t>;
    case Type::s64:
      return map<F, int64_t, int64_t>;
    default:
      return nullptr;
  }
}

template <class F>
Handler binary(Type t) {
  switch (t) {
    case Type::u16:
      return map<F, uint16_t, uint16_t, uint16_t>;
    case Type::s16:
      return map<F, int16_t, int16_t, int16_t>;
    case Type::u32:
      return map<F, uint32_t, uint32_t, uint32_t>;
    case Type::s32:
      return map<F, int32_t, int32_t, int32_t>;
    case Type::u64:
      return map<F, uint64_t, uint64_t, uint64_t>;
    case Type::s64:
      return map<F, int64_t, int64_t, int64_t>;
    default:
      return nullptr;
  }
}

template <class F>
Handler ternary(Type t) {
  switch (t) {
    case Type::u16:
      return map<F, uint16_t, uint16_t, uint16_t, uint16_t>;
    case Type::s16:
      return map<F, int16_t, int16_t, int16_t, int16_t>;
    case Type::u32:
      return map<F, uint32_t, uint32_t, uint32_t, uint32_t>;
    case Type::s32:
      return map<F, int32_t, int32_t, int32_t, int32_t>;
    case Type::u64:
      return map<F, uint64_t, uint64_t, uint64_t, uint64_t>;
    case Type::s64:
      return map<F, int64_t, int64_t, int64_t, int64_t>;
    default:
      return nullptr;
  }
}

Handler wide_product(Type t) {
  switch (t) {
    case Type::u16:
      return map<MultiplyWide, uint32_t, uint16_t, uint16_t>;
    case Type::s16:
      return map<MultiplyWide, int32_t, int16_t, int16_t>;
    case Type::u32:
      return map<MultiplyWide, uint64_t, uint32_t, uint32_t>;
    case Type::s32:
      return map<MultiplyWide, int64_t, int32_t, int32_t>;
    default:
      return nullptr;
  }
}

Handler wide_multiply_add(Type t) {
  using F = ThenAdd<MultiplyWide>;
  switch (t) {
    case Type::u16:
      return map<F, uint32_t, uint16_t, uint16_t, uint32_t>;
    case Type::s16:
      return map<F, int32_t, int16_t, int16_t, int32_t>;
    case Type::u32:
      return map<F, uint64_t, uint32_t, uint32_t, uint64_t>;
    case Type::s32:
      return map<F, int64_t, int32_t, int32_t, int64_t>;
    default:
      return nullptr;
  }
}

Type twice(Type t) {
  switch (t) {
    case Type::u16:
      return Type::u32;
    case Type::s16:
      return Type::s32;
    case Type::u32:
      return Type::u64;
    default:
      return Type::s64;
  }
}

bool floating(Type t) { return is_float(t) || t == Type::f16x2 || t == Type::bf16x2; }

}  // namespace

// Families that floats share call these after they have taken the type.
void decode_integer_binary(Decoder& d, Instruction& i, Type t, std::string_view name) {
  if (name == "add")
    i.handler = d.has("sat") ? map<SaturatingAdd, int32_t, int32_t, int32_t> : binary<Add>(t);
  if (name == "sub") i.handler = binary<Subtract>(t);
  if (name == "min") i.handler = binary<Minimum>(t);
  if (name == "max") i.handler = binary<Maximum>(t);
  if (name == "div") i.handler = binary<Divide>(t);
  if (name == "rem") i.handler = binary<Remainder>(t);
  i.destination = d.destination(0, t);
  i.source[0] = d.source(1, t);
  i.source[1] = d.source(2, t);
}

void decode_integer_mul(Decoder& d, Instruction& i, Type t, bool add) {
  const bool wide = d.has("wide");
  if (wide) {
    i.handler = add ? wide_multiply_add(t) : wide_product(t);
  } else if (d.has("hi")) {
    i.handler = add ? ternary<ThenAdd<MultiplyHigh>>(t) : binary<MultiplyHigh>(t);
  } else if (d.has("lo")) {
    i.handler = add ? ternary<ThenAdd<MultiplyLow>>(t) : binary<MultiplyLow>(t);
  }
  const Type result = wide ? twice(t) : t;
  i.destination = d.destination(0, result);
  i.source[0] = d.source(1, t);
  i.source[1] = d.source(2, t);
  if (add) i.source[2] = d.source(3, result);
}

void decode_integer_unary(Decoder& d, Instruction& i, Type t, bool negate) {
  i.handler = negate ? unary<Negate>(t) : unary<Absolute>(t);
  i.destination = d.destination(0, t);
  i.source[0] = d.source(1, t);
}

bool is_floating_family(Type t) { return floating(t); }

void add_integer(DecodeTable& table) {
  table["rem"] = [](Decoder& d, Instruction& i) { decode_integer_binary(d, i, d.type(), "rem"); };
  table["sad"] = [](Decoder& d, Instruction& i) {
    const Type t = d.type();
    i.handler = ternary<SumOfDifferences>(t);
    i.destination = d.destination(0, t);
    for (unsigned k = 0; k < 3; ++k) i.source[k] = d.source(k + 1, t);
  };
  table["mul24"] = [](Decoder& d, Instruction& i) {
    const Type t = d.type();
    if (d.has("lo"))
      i.handler = t == Type::s32 ? map<Multiply24, int32_t, int32_t, int32_t>
                                 : map<Multiply24, uint32_t, uint32_t, uint32_t>;
    i.destination = d.destination(0, t);
    for (unsigned k = 0; k < 2; ++k) i.source[k] = d.source(k + 1, t);
  };
  table["dp4a"] = [](Decoder& d, Instruction& i) {
    const bool a = is_signed(d.type()), b = is_signed(d.type());
    i.handler = a ? (b ? map<Dot4<int8_t, int8_t>, uint32_t, uint32_t, uint32_t, uint32_t>
                       : map<Dot4<int8_t, uint8_t>, uint32_t, uint32_t, uint32_t, uint32_t>)
                  : (b ? map<Dot4<uint8_t, int8_t>, uint32_t, uint32_t, uint32_t, uint32_t>
                       : map<Dot4<uint8_t, uint8_t>, uint32_t, uint32_t, uint32_t, uint32_t>);
    i.destination = d.destination(0, Type::b32);
    for (unsigned k = 0; k < 3; ++k) i.source[k] = d.source(k + 1, Type::b32);
  };
}

}  // namespace longreach::ptx
