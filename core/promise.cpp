#include "core/promise.h"

namespace longreach {
namespace {

// What stands before a path from the root of the tree in names of files, as this build gives them.
constexpr std::string_view kThisFile = __FILE__;
constexpr std::string_view kRoot =
    kThisFile.substr(0, kThisFile.size() - std::string_view("core/promise.cpp").size());

std::string_view from_root(std::string_view file) {
  return file.starts_with(kRoot) ? file.substr(kRoot.size()) : file;
}

}  // namespace

std::string bug_report(std::string_view what, std::string_view file, int line) {
  return text("this is a bug of Longreach: ", what, " (", from_root(file), ":", line, ")");
}

}  // namespace longreach
