// Facts of this build.
#pragma once
#include <string_view>

namespace longreach {

inline constexpr std::string_view kVersion = LONGREACH_VERSION;
inline constexpr std::string_view kTorchVersion = LONGREACH_TORCH_VERSION;

}  // namespace longreach
