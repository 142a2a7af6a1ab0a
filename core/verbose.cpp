// One flag of the process, and lines on standard error.
#include "core/verbose.h"

#include <atomic>
#include <cstdio>

namespace longreach {
namespace {

std::atomic<bool> wanted_by_user{false};

}  // namespace

bool verbose() { return wanted_by_user; }
void set_verbose(bool wanted) { wanted_by_user = wanted; }

Stage::~Stage() {
  if (!verbose()) return;
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  std::fprintf(stderr, "%s: %.2f s\n", what_.c_str(), seconds);
}

}  // namespace longreach
