#include "train/matmul_choice.h"

#include "core/error.h"
#include "layers/ops/matmul/matmul.h"

namespace longreach {

void choose_matmul(const std::string& key, const std::string& recorded,
                   const std::function<void(const std::string&)>& warn) {
  if (key != "auto") {
    try {
      set_matmul_library(matmul_library_named(key));
    } catch (const ConfigError& error) {
      throw ConfigError(text("training.matmul = ", error.what()));
    }
    return;
  }
  set_matmul_library(fastest_matmul_library());
  if (recorded.empty()) return;
  try {
    set_matmul_library(matmul_library_named(recorded));
  } catch (const ConfigError& error) {
    warn(text("this run has multiplied by ", error.what(), "; ", name_of(matmul_library()),
              " multiplies from here on, which changes bits"));
  }
}

}  // namespace longreach
