// Bits: and, or, xor, not, shifts, lop3, prmt, bfe, bfi, popc, clz, bfind, brev, mov with packing, cvta,
// selp.
#include <algorithm>

#include "tests/ptx/interpreter/decoder.h"
#include "tests/ptx/interpreter/lanes.h"

namespace longreach::ptx {
namespace {

struct And {
  template <class T>
  T operator()(T a, T b) const {
    return static_cast<T>(a & b);
  }
};
struct Or {
  template <class T>
  T operator()(T a, T b) const {
    return static_cast<T>(a | b);
  }
};
struct Xor {
  template <class T>
  T operator()(T a, T b) const {
    return static_cast<T>(a ^ b);
  }
};
struct Not {
  template <class T>
  T operator()(T a) const {
    return static_cast<T>(~a);
  }
};
struct Same {
  template <class T>
  T operator()(T a) const {
    return a;
  }
};
// Shifts beyond the width give zeros, or copies of the sign.
struct ShiftLeft {
  template <class T>
  T operator()(T a, uint32_t n) const {
    return n >= 8 * sizeof(T) ? T{0} : static_cast<T>(static_cast<uint64_t>(a) << n);
  }
};
struct ShiftRight {
  template <class T>
  T operator()(T a, uint32_t n) const {
    if constexpr (std::is_signed_v<T>) return static_cast<T>(a >> std::min<uint32_t>(n, 8 * sizeof(T) - 1));
    return n >= 8 * sizeof(T) ? T{0} : static_cast<T>(a >> n);
  }
};
template <bool Left, bool Wrap>
struct Funnel {
  uint32_t operator()(uint32_t a, uint32_t b, uint32_t c) const {
    const uint32_t n = Wrap ? c & 31 : std::min(c, 32u);
    const uint64_t both = uint64_t{b} << 32 | a;
    return Left ? static_cast<uint32_t>(n == 32 ? a : both << n >> 32) : static_cast<uint32_t>(both >> n);
  }
};
struct Permute {
  uint32_t operator()(uint32_t a, uint32_t b, uint32_t selector) const {
    const uint64_t bytes = uint64_t{b} << 32 | a;
    uint32_t result = 0;
    for (unsigned k = 0; k < 4; ++k) {
      const uint32_t s = selector >> (4 * k) & 15;
      const uint32_t byte = bytes >> (8 * (s & 7)) & 0xff;
      result |= (s & 8 ? (byte & 0x80 ? 0xffu : 0u) : byte) << (8 * k);
    }
    return result;
  }
};
struct ExtractField {
  template <class T>
  T operator()(T a, uint32_t position, uint32_t length) const {
    using U = std::make_unsigned_t<T>;
    constexpr unsigned kBits = 8 * sizeof(T);
    const unsigned p = position & 0xff, n = length & 0xff;
    if (!n) return 0;
    const bool sign = std::is_signed_v<T> && (static_cast<U>(a) >> std::min(p + n - 1, kBits - 1) & 1);
    const U mask = n >= kBits ? ~U{0} : (U{1} << n) - 1;
    U field = p >= kBits ? U{0} : static_cast<U>(a) >> p;
    const unsigned present = p >= kBits ? 0 : kBits - p;
    if (sign && present < kBits) field |= present ? ~U{0} << present : ~U{0};
    field &= mask;
    return static_cast<T>(sign ? field | ~mask : field);
  }
};
struct InsertField {
  template <class T>
  T operator()(T a, T b, uint32_t position, uint32_t length) const {
    constexpr unsigned kBits = 8 * sizeof(T);
    const unsigned p = position & 0xff, n = length & 0xff;
    if (p >= kBits || !n) return b;
    const T mask = (n >= kBits ? ~T{0} : (T{1} << n) - 1) << p;
    return static_cast<T>((b & ~mask) | (a << p & mask));
  }
};
struct PopulationCount {
  template <class T>
  uint32_t operator()(T a) const {
    return static_cast<uint32_t>(__builtin_popcountll(a));
  }
};
struct LeadingZeros {
  template <class T>
  uint32_t operator()(T a) const {
    return a ? static_cast<uint32_t>(__builtin_clzll(a)) - (64 - 8 * sizeof(T)) : 8 * sizeof(T);
  }
};
// The place of the highest bit that differs from the sign; all ones when there is none.
struct FindLeading {
  template <class T>
  uint32_t operator()(T a) const {
    using U = std::make_unsigned_t<T>;
    const U bits = static_cast<U>(std::is_signed_v<T> && a < 0 ? ~a : a);
    return bits ? 63u - static_cast<uint32_t>(__builtin_clzll(bits)) : ~0u;
  }
};
// How far to shift left to bring that bit to the top.
struct ShiftToLeading {
  template <class T>
  uint32_t operator()(T a) const {
    const uint32_t place = FindLeading{}(a);
    return place == ~0u ? place : 8 * sizeof(T) - 1 - place;
  }
};
struct Reverse {
  template <class T>
  T operator()(T a) const {
    T result = 0;
    for (unsigned k = 0; k < 8 * sizeof(T); ++k) result |= (a >> k & 1) << (8 * sizeof(T) - 1 - k);
    return result;
  }
};

Step logic3(Warp& w, const Instruction& i, uint32_t mask) {
  const uint32_t* a = std::as_const(w).lanes<uint32_t>(i.source[0]);
  const uint32_t* b = std::as_const(w).lanes<uint32_t>(i.source[1]);
  const uint32_t* c = std::as_const(w).lanes<uint32_t>(i.source[2]);
  for_lanes(mask, [&](unsigned l) {
    uint32_t result = 0;
    for (unsigned k = 0; k < 8; ++k) {
      if (i.offset[0] >> k & 1)
        result |= (k & 4 ? a[l] : ~a[l]) & (k & 2 ? b[l] : ~b[l]) & (k & 1 ? c[l] : ~c[l]);
    }
    w.set_value(i.destination, l, result);
  });
  return Step::next;
}

enum Logic : uint8_t { kAnd, kOr, kXor, kNot, kMove };

Step predicate_logic(Warp& w, const Instruction& i, uint32_t mask) {
  const uint32_t a = w.predicate(i.source[0]), b = i.flags < kNot ? w.predicate(i.source[1]) : 0;
  const uint32_t results[] = {a & b, a | b, a ^ b, ~a, a};
  w.set_predicate(i.destination, mask, results[i.flags]);
  return Step::next;
}

template <class T>
Step select(Warp& w, const Instruction& i, uint32_t mask) {
  const uint32_t chosen = w.predicate(i.source[2]);
  const Storage<T>* a = std::as_const(w).lanes<T>(i.source[0]);
  const Storage<T>* b = std::as_const(w).lanes<T>(i.source[1]);
  Storage<T>* d = w.lanes<T>(i.destination);
#pragma GCC ivdep
  for (unsigned l = 0; l < 32; ++l) {
    const Storage<T> value = chosen >> l & 1 ? a[l] : b[l];
    d[l] = mask >> l & 1 ? value : d[l];
  }
  return Step::next;
}

// mov of several registers into a wider one, or of one into several narrower ones, low parts first.
Step pack_move(Warp& w, const Instruction& i, uint32_t mask) {
  const unsigned bits = 8 * size_of(i.type2);
  const uint64_t low = bits == 64 ? ~0ull : (1ull << bits) - 1;
  for_lanes(mask, [&](unsigned l) {
    uint64_t whole = 0;
    for (size_t k = 0; k < i.values.size(); ++k) whole |= (w.value(i.values[k], l) & low) << (bits * k);
    w.set_value(i.destination, l, whole);
  });
  return Step::next;
}

Step unpack_move(Warp& w, const Instruction& i, uint32_t mask) {
  const unsigned bits = 8 * size_of(i.type2);
  const uint64_t low = bits == 64 ? ~0ull : (1ull << bits) - 1;
  for_lanes(mask, [&](unsigned l) {
    const uint64_t whole = w.value(i.source[0], l);
    for (size_t k = 0; k < i.values.size(); ++k) w.set_value(i.values[k], l, whole >> (bits * k) & low);
  });
  return Step::next;
}

Type part_type(const Decoder& d, Type whole, size_t parts) {
  switch (size_of(whole) / parts) {
    case 1:
      return Type::b8;
    case 2:
      return Type::b16;
    case 4:
      return Type::b32;
    default:
      d.fail("packs registers of this size, which is not supported");
  }
}

void decode_mov(Decoder& d, Instruction& i) {
  const Type t = d.type();
  const std::string_view to = d.operand(0), from = d.operand(1);
  if (t == Type::pred) {
    i.handler = predicate_logic;
    i.flags = kMove;
    i.destination = d.destination(0, t);
    i.source[0] = d.predicate(from);
  } else if (from.starts_with('{')) {
    i.type2 = part_type(
        d, t,
        split_outside(from, ',').size() ? split_outside(from.substr(1, from.size() - 2), ',').size() : 1);
    i.handler = pack_move;
    i.values = d.loose_list(from, i.type2);
    i.destination = d.destination(0, t);
  } else if (to.starts_with('{')) {
    i.type2 = part_type(d, t, split_outside(to.substr(1, to.size() - 2), ',').size());
    i.handler = unpack_move;
    i.values = d.loose_list(to, i.type2);
    i.writes = static_cast<uint8_t>(i.values.size());
    i.source[0] = d.source(1, t);
  } else {
    i.handler = is_wide(t) ? map<Same, uint64_t, uint64_t> : map<Same, uint32_t, uint32_t>;
    i.destination = d.destination(0, t);
    i.source[0] = d.source(1, t);
  }
}

template <Logic L, class F>
void decode_logic(Decoder& d, Instruction& i) {
  const Type t = d.type();
  i.flags = L;
  i.destination = d.destination(0, t);
  i.source[0] = d.source(1, t);
  if constexpr (L != kNot) i.source[1] = d.source(2, t);
  if (t == Type::pred) {
    i.handler = predicate_logic;
  } else if constexpr (L == kNot) {
    i.handler = is_wide(t)        ? map<F, uint64_t, uint64_t>
                : size_of(t) == 2 ? map<F, uint16_t, uint16_t>
                                  : map<F, uint32_t, uint32_t>;
  } else {
    i.handler = is_wide(t) ? map<F, uint64_t, uint64_t, uint64_t> : map<F, uint32_t, uint32_t, uint32_t>;
  }
}

void decode_shift(Decoder& d, Instruction& i, bool left) {
  const Type t = d.type();
  i.destination = d.destination(0, t);
  i.source[0] = d.source(1, t);
  i.source[1] = d.source(2, Type::u32);
  if (left) {
    i.handler = is_wide(t)        ? map<ShiftLeft, uint64_t, uint64_t, uint32_t>
                : size_of(t) == 2 ? map<ShiftLeft, uint16_t, uint16_t, uint32_t>
                                  : map<ShiftLeft, uint32_t, uint32_t, uint32_t>;
    return;
  }
  switch (t) {
    case Type::s16:
      i.handler = map<ShiftRight, int16_t, int16_t, uint32_t>;
      break;
    case Type::s32:
      i.handler = map<ShiftRight, int32_t, int32_t, uint32_t>;
      break;
    case Type::s64:
      i.handler = map<ShiftRight, int64_t, int64_t, uint32_t>;
      break;
    default:
      i.handler = is_wide(t)        ? map<ShiftRight, uint64_t, uint64_t, uint32_t>
                  : size_of(t) == 2 ? map<ShiftRight, uint16_t, uint16_t, uint32_t>
                                    : map<ShiftRight, uint32_t, uint32_t, uint32_t>;
  }
}

void decode_funnel(Decoder& d, Instruction& i) {
  const bool left = d.has("l");
  if (!left) d.has("r");
  const bool wrap = d.has("wrap");
  if (!wrap) d.has("clamp");
  d.type();
  const auto pick = [](Handler a, Handler b, bool first) { return first ? a : b; };
  i.handler = left ? pick(map<Funnel<true, true>, uint32_t, uint32_t, uint32_t, uint32_t>,
                          map<Funnel<true, false>, uint32_t, uint32_t, uint32_t, uint32_t>, wrap)
                   : pick(map<Funnel<false, true>, uint32_t, uint32_t, uint32_t, uint32_t>,
                          map<Funnel<false, false>, uint32_t, uint32_t, uint32_t, uint32_t>, wrap);
  i.destination = d.destination(0, Type::b32);
  for (unsigned k = 0; k < 3; ++k) i.source[k] = d.source(k + 1, Type::b32);
}

void decode_fields(DecodeTable& table) {
  table["bfe"] = [](Decoder& d, Instruction& i) {
    const Type t = d.type();
    i.handler = t == Type::s32   ? map<ExtractField, int32_t, int32_t, uint32_t, uint32_t>
                : t == Type::u32 ? map<ExtractField, uint32_t, uint32_t, uint32_t, uint32_t>
                : t == Type::s64 ? map<ExtractField, int64_t, int64_t, uint32_t, uint32_t>
                                 : map<ExtractField, uint64_t, uint64_t, uint32_t, uint32_t>;
    i.destination = d.destination(0, t);
    i.source[0] = d.source(1, t);
    for (unsigned k = 1; k < 3; ++k) i.source[k] = d.source(k + 1, Type::u32);
  };
  table["bfi"] = [](Decoder& d, Instruction& i) {
    const Type t = d.type();
    i.handler = is_wide(t) ? map<InsertField, uint64_t, uint64_t, uint64_t, uint32_t, uint32_t>
                           : map<InsertField, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t>;
    i.destination = d.destination(0, t);
    for (unsigned k = 0; k < 2; ++k) i.source[k] = d.source(k + 1, t);
    for (unsigned k = 2; k < 4; ++k) i.source[k] = d.source(k + 1, Type::u32);
  };
  table["prmt"] = [](Decoder& d, Instruction& i) {
    d.type();
    i.handler = map<Permute, uint32_t, uint32_t, uint32_t, uint32_t>;
    i.destination = d.destination(0, Type::b32);
    for (unsigned k = 0; k < 3; ++k) i.source[k] = d.source(k + 1, Type::b32);
  };
  table["lop3"] = [](Decoder& d, Instruction& i) {
    d.type();
    i.handler = logic3;
    i.destination = d.destination(0, Type::b32);
    for (unsigned k = 0; k < 3; ++k) i.source[k] = d.source(k + 1, Type::b32);
    i.offset[0] = d.immediate(4);
  };
}

template <class F>
void decode_count(Decoder& d, Instruction& i) {
  const Type t = d.type();
  i.handler = is_wide(t) ? map<F, uint32_t, uint64_t> : map<F, uint32_t, uint32_t>;
  i.destination = d.destination(0, Type::u32);
  i.source[0] = d.source(1, t);
}

template <class F>
void decode_find(Decoder& d, Instruction& i) {
  const Type t = d.type();
  i.handler = t == Type::s32   ? map<F, uint32_t, int32_t>
              : t == Type::u32 ? map<F, uint32_t, uint32_t>
              : t == Type::s64 ? map<F, uint32_t, int64_t>
                               : map<F, uint32_t, uint64_t>;
  i.destination = d.destination(0, Type::u32);
  i.source[0] = d.source(1, t);
}

void decode_counts(DecodeTable& table) {
  table["popc"] = decode_count<PopulationCount>;
  table["clz"] = decode_count<LeadingZeros>;
  table["bfind"] = [](Decoder& d, Instruction& i) {
    if (d.has("shiftamt")) {
      decode_find<ShiftToLeading>(d, i);
    } else {
      decode_find<FindLeading>(d, i);
    }
  };
  table["brev"] = [](Decoder& d, Instruction& i) {
    const Type t = d.type();
    i.handler = is_wide(t) ? map<Reverse, uint64_t, uint64_t> : map<Reverse, uint32_t, uint32_t>;
    i.destination = d.destination(0, t);
    i.source[0] = d.source(1, t);
  };
}

template <uint64_t Window>
struct ToGeneric {
  uint64_t operator()(uint64_t a) const { return a | Window; }
};
struct FromGeneric {
  uint64_t operator()(uint64_t a) const { return a & ~kWindowMask; }
};

void decode_cvta(Decoder& d, Instruction& i) {
  const bool back = d.has("to");
  const Type t = d.type();
  if (!is_wide(t)) d.fail("32-bit generic addresses are not supported");
  const bool shared = d.has("shared") || d.has("shared::cta"), local = d.has("local"),
             parameter = d.has("param");
  if (!shared && !local && !parameter && !d.has("global") && !d.has("const")) d.fail("names no known space");
  i.handler = back        ? map<FromGeneric, uint64_t, uint64_t>
              : shared    ? map<ToGeneric<kSharedWindow>, uint64_t, uint64_t>
              : local     ? map<ToGeneric<kLocalWindow>, uint64_t, uint64_t>
              : parameter ? map<ToGeneric<kParameterWindow>, uint64_t, uint64_t>
                          : map<Same, uint64_t, uint64_t>;
  i.destination = d.destination(0, t);
  i.source[0] = d.source(1, t);
}

}  // namespace

void add_bits(DecodeTable& table) {
  table["and"] = decode_logic<kAnd, And>;
  table["or"] = decode_logic<kOr, Or>;
  table["xor"] = decode_logic<kXor, Xor>;
  table["not"] = decode_logic<kNot, Not>;
  table["mov"] = decode_mov;
  table["cvta"] = decode_cvta;
  table["shl"] = [](Decoder& d, Instruction& i) { decode_shift(d, i, true); };
  table["shr"] = [](Decoder& d, Instruction& i) { decode_shift(d, i, false); };
  table["shf"] = decode_funnel;
  table["selp"] = [](Decoder& d, Instruction& i) {
    const Type t = d.type();
    i.handler = is_wide(t) ? select<uint64_t> : select<uint32_t>;
    i.destination = d.destination(0, t);
    for (unsigned k = 0; k < 2; ++k) i.source[k] = d.source(k + 1, t);
    i.source[2] = d.predicate(d.operand(3));
  };
  decode_fields(table);
  decode_counts(table);
}

}  // namespace longreach::ptx
