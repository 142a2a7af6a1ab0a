// Which library multiplies float32 matrices in a run (layers/ops/matmul/matmul.h).
#pragma once
#include <functional>
#include <string>

namespace longreach {

// key: training.matmul, "auto" or a library. "auto" is `recorded`, what the run has used so far, or, in a new
// run (empty), the fastest on this CPU. A recorded library that this machine does not have is replaced and
// `warn` called: bits differ from there on. Throws ConfigError naming the key.
void choose_matmul(const std::string& key, const std::string& recorded,
                   const std::function<void(const std::string&)>& warn);

}  // namespace longreach
