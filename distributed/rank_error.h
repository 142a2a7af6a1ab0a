// What a rank throws that can't go on because of another one.
#pragma once
#include "core/error.h"

namespace longreach {

// Another rank failed, or did not come in time. The message names it, and what it was waited for. A transport
// is never repaired: the process ends, with exit code 1.
struct RankError : Error {
  using Error::Error;
};

}  // namespace longreach
