// Kinds of files by their first bytes, whatever their names say.
#pragma once
#include <cstddef>
#include <string>
#include <string_view>

namespace longreach::data {

inline constexpr size_t kKindBytes = 512;  // of a file's beginning that tell its kind

enum class Packing { none, gzip, zstd };
Packing packing_of(std::string_view head);

// What a file is that holds no text and is not unpacked here ("packed with xz"), and what to do about it;
// empty names for everything else.
struct ForeignKind {
  std::string_view is, advice;  // FILE in the advice stands for the file's name
};
ForeignKind foreign_kind(std::string_view head);

// The advice about a file, whose name a shell can take as it stands there.
std::string advice_on(const ForeignKind& kind, const std::string& path);

}  // namespace longreach::data
