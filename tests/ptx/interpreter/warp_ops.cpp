// Instructions that lanes of a warp execute together: shuffles, votes, match, redux, elect, activemask.
#include <algorithm>

#include "tests/ptx/interpreter/decoder.h"
#include "tests/ptx/interpreter/lanes.h"

namespace longreach::ptx {
namespace {

enum ShuffleMode : uint8_t { kUp, kDown, kButterfly, kIndex };

// Source 2 packs a clamp (bits 0-4) and a segment mask (bits 8-12), as in the ISA's pseudocode.
Step shuffle(Warp& w, const Instruction& i, uint32_t mask) {
  std::array<uint32_t, 32> before;
  std::copy_n(std::as_const(w).lanes<uint32_t>(i.source[0]), 32, before.begin());
  uint32_t inside = 0;
  for_lanes(mask, [&](unsigned l) {
    const auto b = static_cast<uint32_t>(w.value(i.source[1], l)),
               c = static_cast<uint32_t>(w.value(i.source[2], l));
    const uint32_t segment = c >> 8 & 31;
    const uint32_t high = (l & segment) | (c & ~segment & 31), low = l & segment;
    uint32_t from = l;
    bool in_range = true;
    switch (i.flags) {
      case kUp:
        from = l - (b & 31);
        in_range = static_cast<int32_t>(from) >= static_cast<int32_t>(high);
        break;
      case kDown:
        from = l + (b & 31);
        in_range = from <= high;
        break;
      case kButterfly:
        from = l ^ (b & 31);
        in_range = from <= high;
        break;
      default:
        from = low | (b & ~segment & 31);
        in_range = from <= high;
    }
    if (!in_range) from = l;
    if (!(mask >> from & 1)) w.block->error(w, l, "shfl.sync reads a lane that does not take part");
    inside |= uint32_t{in_range} << l;
    w.set_value(i.destination, l, before[from]);
  });
  w.set_predicate(i.destination2, mask, inside);
  return Step::next;
}

void decode_shfl(Decoder& d, Instruction& i) {
  if (!d.has("sync")) d.fail("lacks .sync");
  i.flags = d.has("up") ? kUp : d.has("down") ? kDown : d.has("bfly") ? kButterfly : kIndex;
  d.has("idx");
  d.type();
  i.handler = shuffle;
  i.together = Together::members;
  i.member = 3;
  const std::string_view to = d.operand(0);
  const auto bar = to.find('|');
  i.destination = d.target(trimmed(to.substr(0, bar)), Type::b32);
  if (bar != std::string_view::npos) i.destination2 = d.target(trimmed(to.substr(bar + 1)), Type::pred);
  for (unsigned k = 0; k < 4; ++k) i.source[k] = d.source(k + 1, Type::b32);
}

enum VoteMode : uint8_t { kAll, kAny, kUniform, kBallot };

Step vote(Warp& w, const Instruction& i, uint32_t mask) {
  const uint32_t held = w.predicate(i.source[0]) & mask;
  const bool results[] = {held == mask, held != 0, held == 0 || held == mask};
  if (i.flags == kBallot) {
    for_lanes(mask, [&](unsigned l) { w.set_value(i.destination, l, held); });
  } else {
    w.set_predicate(i.destination, mask, results[i.flags] ? ~0u : 0u);
  }
  return Step::next;
}

void decode_vote(Decoder& d, Instruction& i) {
  if (!d.has("sync")) d.fail("lacks .sync");
  i.flags = d.has("all") ? kAll : d.has("any") ? kAny : d.has("uni") ? kUniform : kBallot;
  d.has("ballot");
  const Type t = d.type();
  i.handler = vote;
  i.together = Together::members;
  i.member = 1;
  i.destination = d.destination(0, t);
  i.source[0] = d.predicate(d.operand(1));
  i.source[1] = d.source(2, Type::b32);
}

enum Reduction : uint8_t { kAdd, kMin, kMax, kAnd, kOr, kXor };

Step reduce(Warp& w, const Instruction& i, uint32_t mask) {
  const uint32_t* a = std::as_const(w).lanes<uint32_t>(i.source[0]);
  bool first = true;
  uint32_t r = 0;
  for_lanes(mask, [&](unsigned l) {
    const uint32_t x = a[l];
    const bool sign = i.type == Type::s32;
    const bool less = sign ? static_cast<int32_t>(x) < static_cast<int32_t>(r) : x < r;
    if (first) {
      r = x;
    } else {
      switch (i.flags) {
        case kAdd:
          r += x;
          break;
        case kMin:
          r = less ? x : r;
          break;
        case kMax:
          r = less ? r : x;
          break;
        case kAnd:
          r &= x;
          break;
        case kOr:
          r |= x;
          break;
        default:
          r ^= x;
      }
    }
    first = false;
  });
  for_lanes(mask, [&](unsigned l) { w.set_value(i.destination, l, r); });
  return Step::next;
}

void decode_redux(Decoder& d, Instruction& i) {
  if (!d.has("sync")) d.fail("lacks .sync");
  static constexpr std::string_view kNames[] = {"add", "min", "max", "and", "or", "xor"};
  const auto found =
      std::find_if(std::begin(kNames), std::end(kNames), [&](std::string_view name) { return d.has(name); });
  if (found == std::end(kNames)) d.fail("names no known operation");
  i.flags = static_cast<uint8_t>(found - std::begin(kNames));
  i.type = d.type();
  if (i.type == Type::f32) d.fail("redux of f32 is not supported");
  i.handler = reduce;
  i.together = Together::members;
  i.member = 1;
  i.destination = d.destination(0, Type::b32);
  for (unsigned k = 0; k < 2; ++k) i.source[k] = d.source(k + 1, Type::b32);
}

Step match(Warp& w, const Instruction& i, uint32_t mask) {
  std::array<uint64_t, 32> value{};
  for_lanes(mask, [&](unsigned l) { value[l] = w.value(i.source[0], l); });
  uint32_t all = ~0u;
  for_lanes(mask, [&](unsigned l) {
    uint32_t same = 0;
    for_lanes(mask, [&](unsigned k) { same |= uint32_t{value[k] == value[l]} << k; });
    if (same != mask) all = 0;
    if (!i.flags) w.set_value(i.destination, l, same);
  });
  if (i.flags) {
    for_lanes(mask, [&](unsigned l) { w.set_value(i.destination, l, all & mask); });
    w.set_predicate(i.destination2, mask, all);
  }
  return Step::next;
}

void decode_match(Decoder& d, Instruction& i) {
  i.flags = d.has("all");
  d.has("any");
  d.has("sync");
  const Type t = d.type();
  i.handler = match;
  i.together = Together::members;
  i.member = 1;
  const std::string_view to = d.operand(0);
  const auto bar = to.find('|');
  i.destination = d.target(trimmed(to.substr(0, bar)), Type::b32);
  if (bar != std::string_view::npos) i.destination2 = d.target(trimmed(to.substr(bar + 1)), Type::pred);
  i.source[0] = d.source(1, t);
  i.source[1] = d.source(2, Type::b32);
}

// The lowest lane of the member mask is the leader.
Step elect(Warp& w, const Instruction& i, uint32_t mask) {
  const auto leader = static_cast<unsigned>(__builtin_ctz(mask));
  for_lanes(mask, [&](unsigned l) { w.set_value(i.destination, l, leader); });
  w.set_predicate(i.destination2, mask, 1u << leader);
  return Step::next;
}

void decode_elect(Decoder& d, Instruction& i) {
  if (!d.has("sync")) d.fail("lacks .sync");
  i.handler = elect;
  i.together = Together::members;
  i.member = 0;
  const std::string_view to = d.operand(0);
  const auto bar = to.find('|');
  i.destination = d.target(trimmed(to.substr(0, bar)), Type::b32);
  if (bar != std::string_view::npos) i.destination2 = d.target(trimmed(to.substr(bar + 1)), Type::pred);
  i.source[0] = d.source(1, Type::b32);
}

Step active_mask(Warp& w, const Instruction& i, uint32_t mask) {
  for_lanes(mask, [&](unsigned l) { w.set_value(i.destination, l, mask); });
  return Step::next;
}

}  // namespace

void add_warp(DecodeTable& table) {
  table["shfl"] = decode_shfl;
  table["vote"] = decode_vote;
  table["redux"] = decode_redux;
  table["match"] = decode_match;
  table["elect"] = decode_elect;
  table["activemask"] = [](Decoder& d, Instruction& i) {
    d.type();
    i.handler = active_mask;
    i.destination = d.destination(0, Type::b32);
  };
}

}  // namespace longreach::ptx
