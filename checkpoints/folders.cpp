// Renames and deletions of checkpoint folders.
#include "checkpoints/folders.h"

#include <fcntl.h>
#include <cstdio>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <filesystem>

#include "checkpoints/checked_file.h"
#include "checkpoints/checkpoint.h"
#include "core/error.h"

namespace longreach {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPrefix = "step-", kTemporary = ".tmp", kAside = ".old.tmp",
                           kSetAside = ".set-aside";

// The step in step-DIGITS followed by `suffix`, or -1.
int64_t step_of(const std::string& name, std::string_view suffix) {
  if (!name.starts_with(kPrefix) || !name.ends_with(suffix)) return -1;
  const std::string digits =
      name.substr(kPrefix.size(), name.size() - std::min(name.size(), kPrefix.size() + suffix.size()));
  const bool number =
      digits.size() >= 8 && digits.size() <= 18 &&
      std::all_of(digits.begin(), digits.end(), [](unsigned char c) { return std::isdigit(c) != 0; });
  if (!number ||
      step_folder("", std::stoll(digits)).substr(1) != name.substr(0, kPrefix.size() + digits.size()))
    return -1;
  return std::stoll(digits);
}

void remove_tree(const std::string& path) {
  std::error_code error;
  fs::remove_all(path, error);
  if (error) throw CheckpointError(one_line(text(path, ": cannot be removed: ", error.message())));
}

void rename_or_throw(const std::string& from, const std::string& to) {
  if (::rename(from.c_str(), to.c_str()) != 0)
    throw CheckpointError(one_line(text(from, ": cannot be renamed to ", to, ": ", system_reason(errno))));
}

// Old aside, new in; the old one comes back when the new one cannot be put in.
void replace_by_two_renames(const std::string& temporary, const std::string& complete) {
  const std::string aside = complete + std::string(kAside);
  remove_tree(aside);
  rename_or_throw(complete, aside);
  if (::rename(temporary.c_str(), complete.c_str()) == 0) {
    rename_or_throw(aside, temporary);
    return;
  }
  const int error = errno;
  ::rename(aside.c_str(), complete.c_str());
  throw CheckpointError(
      one_line(text(temporary, ": cannot be renamed to ", complete, ": ", system_reason(error))));
}

bool exists(const std::string& path) {
  std::error_code ignored;
  return fs::exists(fs::symlink_status(path, ignored));
}

// Names in root that end in .tmp, sorted.
std::vector<std::string> temporary_names(const std::string& root) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator at(root, error), end; !error && at != end; at.increment(error)) {
    std::string name = at->path().filename().string();
    if (name.ends_with(kTemporary)) names.push_back(std::move(name));
  }
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace

std::string step_folder(const std::string& root, int64_t step) {
  std::string digits = std::to_string(step);
  digits.insert(0, 8 - std::min<size_t>(digits.size(), 8), '0');
  return root + "/" + std::string(kPrefix) + digits;
}

int64_t step_named_by(const std::string& folder) {
  fs::path path = fs::path(folder).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();  // "step-00000120/"
  return step_of(path.filename().string(), "");
}

void publish_folder(const std::string& root, int64_t step, const WritePoint& point) {
  const std::string complete = step_folder(root, step), temporary = complete + std::string(kTemporary);
  reach(point);
  if (!exists(complete)) {
    rename_or_throw(temporary, complete);
    reach(point);
    return sync_folder(root);
  }
  if (::renameat2(AT_FDCWD, temporary.c_str(), AT_FDCWD, complete.c_str(), RENAME_EXCHANGE) != 0)
    replace_by_two_renames(temporary, complete);
  reach(point);
  sync_folder(root);
  reach(point);
  remove_tree(temporary);
}

void restore_replaced(const std::string& root) {
  for (const std::string& name : temporary_names(root)) {
    const int64_t step = step_of(name, kAside);
    if (step >= 0 && !exists(step_folder(root, step)))
      std::rename((root + "/" + name).c_str(), step_folder(root, step).c_str());
  }
}

std::vector<std::pair<std::string, std::string>> set_aside_later(const std::string& root, int64_t step) {
  std::vector<std::pair<std::string, std::string>> renamed;
  const auto all = list_checkpoints(root);
  for (auto at = all.rbegin(); at != all.rend() && at->first > step; ++at) {
    const std::string first = at->second + std::string(kSetAside);
    std::string name = first;
    for (int64_t number = 2; exists(name); ++number) name = text(first, "-", number);
    rename_or_throw(at->second, name);
    renamed.emplace_back(at->second, name);
  }
  if (!renamed.empty()) sync_folder(root);
  return renamed;
}

void clean_leftovers(const std::string& root) {
  restore_replaced(root);
  for (const std::string& name : temporary_names(root))
    if (step_of(name, kAside) >= 0 || step_of(name, kTemporary) >= 0) remove_tree(root + "/" + name);
}

void remove_step(const std::string& root, int64_t step, const WritePoint& point) {
  const std::string complete = step_folder(root, step), temporary = complete + std::string(kTemporary);
  remove_tree(temporary);
  reach(point);
  rename_or_throw(complete, temporary);
  reach(point);
  remove_tree(temporary);
}

std::vector<std::pair<int64_t, std::string>> list_checkpoints(const std::string& root) {
  std::vector<std::pair<int64_t, std::string>> found;
  std::error_code error;
  for (fs::directory_iterator at(root, error), end; !error && at != end; at.increment(error)) {
    const int64_t step = step_of(at->path().filename().string(), "");
    if (step >= 0 && at->is_directory(error)) found.emplace_back(step, step_folder(root, step));
  }
  std::sort(found.begin(), found.end());
  return found;
}

}  // namespace longreach
