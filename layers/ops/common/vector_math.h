// The vector functions behind at::cos, at::sin and at::log on CPUs.
#pragma once

namespace longreach {

// Call before the first parallel cos, sin or log of a process. LibTorch takes them from MKL, which chooses
// its code at the first call; when two threads make that call at the same moment, one of them can compute
// with an error of 1e-4 (seen: cos, one process in forty). Cheap: does its work once.
void settle_vector_math();

}  // namespace longreach
