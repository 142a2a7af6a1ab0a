// Comparisons: setp with its boolean combination, set, slct, testp.
#include "tests/ptx/interpreter/decoder.h"
#include "tests/ptx/interpreter/lanes.h"

namespace longreach::ptx {
namespace {

struct Equal {
  template <class T>
  bool operator()(T a, T b) const {
    return a == b;
  }
};
struct Less {
  template <class T>
  bool operator()(T a, T b) const {
    return a < b;
  }
};
struct LessEqual {
  template <class T>
  bool operator()(T a, T b) const {
    return a <= b;
  }
};
struct Greater {
  template <class T>
  bool operator()(T a, T b) const {
    return a > b;
  }
};
struct GreaterEqual {
  template <class T>
  bool operator()(T a, T b) const {
    return a >= b;
  }
};
struct NotEqual {  // ordered: false for NaN
  template <class T>
  bool operator()(T a, T b) const {
    return a < b || a > b;
  }
};
template <class F>
struct OrUnordered {
  template <class T>
  bool operator()(T a, T b) const {
    return a != a || b != b || F{}(a, b);
  }
};
struct IsNumber {
  template <class T>
  bool operator()(T a, T b) const {
    return a == a && b == b;
  }
};
struct IsNan {
  template <class T>
  bool operator()(T a, T b) const {
    return a != a || b != b;
  }
};
template <class F>
struct AsFloat {
  template <class H>
  bool operator()(H a, H b) const {
    return F{}(to_float(a), to_float(b));
  }
};

using Comparer = uint32_t (*)(const Warp&, const Instruction&);
enum Combine : uint8_t { kNone, kWithAnd, kWithOr, kWithXor };

template <Comparer C>
Step set_predicate(Warp& w, const Instruction& i, uint32_t mask) {
  const uint32_t found = C(w, i);
  uint32_t first = found, second = ~found;
  if (i.flags) {
    const uint32_t c = w.predicate(i.source[2]);
    first = i.flags == kWithAnd ? first & c : i.flags == kWithOr ? first | c : first ^ c;
    second = i.flags == kWithAnd ? second & c : i.flags == kWithOr ? second | c : second ^ c;
  }
  w.set_predicate(i.destination, mask, first);
  w.set_predicate(i.destination2, mask, second);
  return Step::next;
}

template <class F>
Handler integer_comparison(Type t) {
  switch (t) {
    case Type::u16:
    case Type::b16:
      return set_predicate<compare_lanes<F, uint16_t>>;
    case Type::s16:
      return set_predicate<compare_lanes<F, int16_t>>;
    case Type::u32:
    case Type::b32:
      return set_predicate<compare_lanes<F, uint32_t>>;
    case Type::s32:
      return set_predicate<compare_lanes<F, int32_t>>;
    case Type::u64:
    case Type::b64:
      return set_predicate<compare_lanes<F, uint64_t>>;
    case Type::s64:
      return set_predicate<compare_lanes<F, int64_t>>;
    default:
      return nullptr;
  }
}

template <class F>
Handler float_comparison(Type t) {
  switch (t) {
    case Type::f16:
      return set_predicate<compare_lanes<AsFloat<F>, Half>>;
    case Type::bf16:
      return set_predicate<compare_lanes<AsFloat<F>, Bfloat>>;
    case Type::f32:
      return set_predicate<compare_lanes<F, float>>;
    case Type::f64:
      return set_predicate<compare_lanes<F, double>>;
    default:
      return nullptr;
  }
}

template <class F>
Handler comparison(Type t) {
  return is_float(t) ? float_comparison<F>(t) : integer_comparison<F>(t);
}

// lo, ls, hi and hs are the unsigned forms of lt, le, gt and ge.
Handler named_comparison(std::string_view name, Type t) {
  if (name == "eq") return comparison<Equal>(t);
  if (name == "ne") return comparison<NotEqual>(t);
  if (name == "lt" || name == "lo") return comparison<Less>(t);
  if (name == "le" || name == "ls") return comparison<LessEqual>(t);
  if (name == "gt" || name == "hi") return comparison<Greater>(t);
  if (name == "ge" || name == "hs") return comparison<GreaterEqual>(t);
  if (name == "equ") return float_comparison<OrUnordered<Equal>>(t);
  if (name == "neu") return float_comparison<OrUnordered<NotEqual>>(t);
  if (name == "ltu") return float_comparison<OrUnordered<Less>>(t);
  if (name == "leu") return float_comparison<OrUnordered<LessEqual>>(t);
  if (name == "gtu") return float_comparison<OrUnordered<Greater>>(t);
  if (name == "geu") return float_comparison<OrUnordered<GreaterEqual>>(t);
  if (name == "num") return float_comparison<IsNumber>(t);
  if (name == "nan") return float_comparison<IsNan>(t);
  return nullptr;
}

void decode_setp(Decoder& d, Instruction& i) {
  const Type t = d.type();
  const std::string name(d.take());
  i.flags = d.has("and") ? kWithAnd : d.has("or") ? kWithOr : d.has("xor") ? kWithXor : kNone;
  d.has("ftz");  // comparisons of denormals are judged without flushing
  i.handler = named_comparison(name, t);
  const std::string_view to = d.operand(0);
  const auto bar = to.find('|');
  if (trimmed(to.substr(0, bar)) != "_") i.destination = d.target(trimmed(to.substr(0, bar)), Type::pred);
  if (bar != std::string_view::npos) i.destination2 = d.target(trimmed(to.substr(bar + 1)), Type::pred);
  for (unsigned k = 0; k < 2; ++k) i.source[k] = d.source(k + 1, t);
  if (i.flags) i.source[2] = d.predicate(d.operand(3));
}

Step choose_by_sign(Warp& w, const Instruction& i, uint32_t mask) {
  for_lanes(mask, [&](unsigned l) {
    const auto c = static_cast<uint32_t>(w.value(i.source[2], l));
    const bool first = i.type2 == Type::f32 ? std::bit_cast<float>(c) >= 0 : static_cast<int32_t>(c) >= 0;
    w.set_value(i.destination, l, w.value(i.source[first ? 0 : 1], l));
  });
  return Step::next;
}

void decode_slct(Decoder& d, Instruction& i) {
  d.has("ftz");
  const Type t = d.type();
  i.type2 = d.type();
  i.handler = choose_by_sign;
  i.destination = d.destination(0, t);
  for (unsigned k = 0; k < 2; ++k) i.source[k] = d.source(k + 1, t);
  i.source[2] = d.source(3, i.type2);
}

enum Test : uint8_t { kFinite, kInfinite, kNumber, kNotNumber, kNormal, kSubnormal };

Step test_class(Warp& w, const Instruction& i, uint32_t mask) {
  uint32_t result = 0;
  for_lanes(mask, [&](unsigned l) {
    const uint64_t bits = w.value(i.source[0], l);
    const double x =
        i.type == Type::f64 ? std::bit_cast<double>(bits) : std::bit_cast<float>(static_cast<uint32_t>(bits));
    const bool subnormal = x != 0 && std::abs(x) < (i.type == Type::f64 ? 0x1p-1022 : 0x1p-126);
    const bool held[] = {std::isfinite(x),
                         std::isinf(x),
                         !std::isnan(x),
                         std::isnan(x),
                         std::isfinite(x) && x != 0 && !subnormal,
                         subnormal};
    result |= uint32_t{held[i.flags]} << l;
  });
  w.set_predicate(i.destination, mask, result);
  return Step::next;
}

void decode_testp(Decoder& d, Instruction& i) {
  static constexpr std::string_view kTests[] = {"finite",     "infinite", "number",
                                                "notanumber", "normal",   "subnormal"};
  const std::string name(d.take());
  for (uint8_t k = 0; k < 6; ++k) {
    if (kTests[k] == name) {
      i.flags = k;
      i.handler = test_class;
    }
  }
  i.type = d.type();
  i.destination = d.destination(0, Type::pred);
  i.source[0] = d.source(1, i.type);
}

}  // namespace

void add_compare(DecodeTable& table) {
  table["setp"] = decode_setp;
  table["slct"] = decode_slct;
  table["testp"] = decode_testp;
}

}  // namespace longreach::ptx
