// Runs a scalar function over the 32 lanes of registers. The loops are plain, so that the compiler turns them
// into vector code; lanes outside the mask keep their value.
#pragma once
#include <tuple>
#include <utility>

#include "tests/ptx/interpreter/machine.h"

namespace longreach::ptx {

template <class F, class R, class... A, size_t... N>
Step map_lanes(Warp& w, const Instruction& i, uint32_t mask, std::index_sequence<N...>) {
  Storage<R>* d = w.lanes<R>(i.destination);
  const std::tuple<const Storage<A>*...> s{std::as_const(w).template lanes<A>(i.source[N])...};
  if (mask == ~0u) {
#pragma GCC ivdep
    for (unsigned l = 0; l < 32; ++l) d[l] = pack<R>(F{}(unpack<A>(std::get<N>(s)[l])...));
  } else {
#pragma GCC ivdep
    for (unsigned l = 0; l < 32; ++l) {
      const Storage<R> value = pack<R>(F{}(unpack<A>(std::get<N>(s)[l])...));
      d[l] = mask >> l & 1 ? value : d[l];
    }
  }
  return Step::next;
}

// destination = F(source 0, source 1, ...), with result and operands of these types.
template <class F, class R, class... A>
Step map(Warp& w, const Instruction& i, uint32_t mask) {
  return map_lanes<F, R, A...>(w, i, mask, std::index_sequence_for<A...>{});
}

// The mask of lanes where F(source 0, source 1) holds.
template <class F, class T>
uint32_t compare_lanes(const Warp& w, const Instruction& i) {
  const Storage<T>* a = w.lanes<T>(i.source[0]);
  const Storage<T>* b = w.lanes<T>(i.source[1]);
  uint32_t result = 0;
  for (unsigned l = 0; l < 32; ++l) result |= uint32_t{F{}(unpack<T>(a[l]), unpack<T>(b[l]))} << l;
  return result;
}

template <class F>
void for_lanes(uint32_t mask, F&& f) {
  for (; mask; mask &= mask - 1) f(static_cast<unsigned>(__builtin_ctz(mask)));
}

}  // namespace longreach::ptx
