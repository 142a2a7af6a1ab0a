#include "checkpoints/safetensors_dtype.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "checkpoints/safetensors_header.h"
#include "core/error.h"

namespace longreach {
namespace {

struct DtypeName {
  std::string_view name;
  at::ScalarType dtype;
};
constexpr std::array<DtypeName, 10> kDtypes = {{{"F64", at::kDouble},
                                                {"F32", at::kFloat},
                                                {"F16", at::kHalf},
                                                {"BF16", at::kBFloat16},
                                                {"I64", at::kLong},
                                                {"I32", at::kInt},
                                                {"I16", at::kShort},
                                                {"I8", at::kChar},
                                                {"U8", at::kByte},
                                                {"BOOL", at::kBool}}};

}  // namespace

std::string safetensors_dtype_name(at::ScalarType dtype, const std::string& who) {
  for (const DtypeName& known : kDtypes)
    if (known.dtype == dtype) return std::string(known.name);
  throw CheckpointError(
      one_line(text(who, ": dtype ", c10::toString(dtype), " cannot be stored in safetensors")));
}

at::ScalarType safetensors_dtype(const std::string& name, const std::string& who) {
  safetensors_element_size(name, who);  // refuses what is none
  return std::find_if(kDtypes.begin(), kDtypes.end(), [&](const auto& known) { return known.name == name; })
      ->dtype;
}

}  // namespace longreach
