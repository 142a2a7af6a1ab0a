// Where a save may be cut off: a function that is called before each change on the disk, a file, a flush, a
// rename, a removal. Who hands one over can count them, or end the process there.
#pragma once
#include <functional>

namespace longreach {

using WritePoint = std::function<void()>;

inline void reach(const WritePoint& point) {
  if (point) point();
}

}  // namespace longreach
