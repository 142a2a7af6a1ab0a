// atom and red on global and shared memory. Lanes that hit one address take effect in the order of their
// lanes.
#include <algorithm>

#include "tests/ptx/interpreter/decoder.h"
#include "tests/ptx/interpreter/lanes.h"
#include "tests/ptx/interpreter/load_store.h"

namespace longreach::ptx {
namespace {

enum Operation : uint8_t {
  kAdd,
  kMin,
  kMax,
  kAnd,
  kOr,
  kXor,
  kExchange,
  kCompareExchange,
  kIncrement,
  kDecrement
};

template <class T>
T combine(Operation operation, T a, T b, T c) {
  if constexpr (std::is_floating_point_v<T>) {
    return operation == kAdd        ? a + b
           : operation == kExchange ? b
           : operation == kMin      ? std::fmin(a, b)
                                    : std::fmax(a, b);
  } else {
    switch (operation) {
      case kAdd:
        return static_cast<T>(static_cast<std::make_unsigned_t<T>>(a) +
                              static_cast<std::make_unsigned_t<T>>(b));
      case kMin:
        return std::min(a, b);
      case kMax:
        return std::max(a, b);
      case kAnd:
        return a & b;
      case kOr:
        return a | b;
      case kXor:
        return a ^ b;
      case kExchange:
        return b;
      case kIncrement:
        return a >= b ? T{0} : static_cast<T>(a + 1);
      case kDecrement:
        return a == 0 || a > b ? b : static_cast<T>(a - 1);
      default:
        return a == b ? c : a;  // compare and exchange
    }
  }
}

template <class H>
uint32_t add_pair(uint32_t a, uint32_t b) {
  uint32_t result = 0;
  for (unsigned k = 0; k < 32; k += 16) {
    const float sum = to_float(H{static_cast<uint16_t>(a >> k)}) + to_float(H{static_cast<uint16_t>(b >> k)});
    if constexpr (std::is_same_v<H, Half>) {
      result |= uint32_t{to_half(sum).bits} << k;
    } else {
      result |= uint32_t{to_bfloat(sum).bits} << k;
    }
  }
  return result;
}

uint64_t combined(const Instruction& i, uint64_t a, uint64_t b, uint64_t c) {
  const auto operation = static_cast<Operation>(i.flags & 15);
  const auto as = [&]<class T>(T) {
    return uint64_t{
        pack<T>(combine<T>(operation, unpack<T>(static_cast<Storage<T>>(a)),
                           unpack<T>(static_cast<Storage<T>>(b)), unpack<T>(static_cast<Storage<T>>(c))))};
  };
  switch (i.type) {
    case Type::s32:
      return as(int32_t{});
    case Type::u64:
    case Type::b64:
      return as(uint64_t{});
    case Type::s64:
      return as(int64_t{});
    case Type::f32:
      return as(float{});
    case Type::f64:
      return as(double{});
    case Type::f16x2:
      return add_pair<Half>(static_cast<uint32_t>(a), static_cast<uint32_t>(b));
    case Type::bf16x2:
      return add_pair<Bfloat>(static_cast<uint32_t>(a), static_cast<uint32_t>(b));
    default:
      return as(uint32_t{});
  }
}

Step atomic(Warp& w, const Instruction& i, uint32_t mask) {
  const unsigned size = size_of(i.type);
  if (w.block->context->options->profile)
    count_traffic(w, i, mask, size * static_cast<unsigned>(i.values.size()));
  for_lanes(mask, [&](unsigned l) {
    uint64_t address = w.value(i.source[0], l) + static_cast<uint64_t>(i.offset[0]);
    if (i.space == Space::shared) address = static_cast<uint32_t>(address);
    std::byte* at =
        resolve(w, i, l, address, size * static_cast<unsigned>(i.values.size()), {.access = Access::atomic});
    if (!at) return;
    order_atomic(w, i.space == Space::shared ? address | kSharedWindow : address, true,
                 static_cast<Order>(i.flags >> 4));
    for (unsigned k = 0; k < i.values.size(); ++k) {
      uint64_t before = 0;
      std::memcpy(&before, at + k * size, size);
      const uint64_t after =
          combined(i, before, w.value(i.values[k], l), i.source[2].present ? w.value(i.source[2], l) : 0);
      std::memcpy(at + k * size, &after, size);
      w.set_value(i.destination, l, before);
    }
  });
  return Step::next;
}

void decode_atomic(Decoder& d, Instruction& i, bool returns) {
  static constexpr std::string_view kNames[] = {"add", "min",  "max", "and", "or",
                                                "xor", "exch", "cas", "inc", "dec"};
  i.space = d.has("global")                           ? Space::global
            : d.has("shared") || d.has("shared::cta") ? Space::shared
                                                      : Space::generic;
  Order order = Order::relaxed;
  d.has("relaxed");
  if (d.has("acquire")) order = Order::acquire;
  if (d.has("release")) order = Order::release;
  if (d.has("acq_rel")) order = Order::both;
  d.allow({"cta", "gpu", "sys", "cluster", "noftz"});
  const auto found =
      std::find_if(std::begin(kNames), std::end(kNames), [&](std::string_view name) { return d.has(name); });
  if (found == std::end(kNames)) d.fail("names no known operation");
  const auto operation = static_cast<uint8_t>(found - std::begin(kNames));
  const unsigned width = d.has("v2") ? 2 : d.has("v4") ? 4 : 1;
  i.type = d.type();
  if (size_of(i.type) < 4) d.fail("atomics of 8 and 16 bits are not supported");
  if ((i.type == Type::f16x2 || i.type == Type::bf16x2) && operation != kAdd)
    d.fail("packed atomics add alone");
  if (returns && width > 1) d.fail("returning vectors is not supported");
  i.flags = static_cast<uint8_t>(operation | static_cast<uint8_t>(order) << 4);
  i.handler = atomic;
  const size_t first = returns ? 1 : 0;
  if (returns) i.destination = d.destination(0, i.type);
  i.source[0] = d.address(d.operand(first), i.offset[0], i.space);
  i.values = d.list(d.operand(first + 1), i.type);
  if (operation == kCompareExchange) i.source[2] = d.source(first + 2, i.type);
  if (i.space != Space::shared) d.kernel().uses_atomics = true;
}

}  // namespace

void add_atomic(DecodeTable& table) {
  table["atom"] = [](Decoder& d, Instruction& i) { decode_atomic(d, i, true); };
  table["red"] = [](Decoder& d, Instruction& i) { decode_atomic(d, i, false); };
}

}  // namespace longreach::ptx
