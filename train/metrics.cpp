// Appending to and trimming metrics.jsonl.
#include "train/metrics.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string_view>
#include <system_error>

#include "core/error.h"

namespace longreach {
namespace {

[[noreturn]] void fail(const std::string& path, std::string_view what) {
  const int error = errno;
  throw TrainingError(one_line(text(path, ": ", what, ": ", std::generic_category().message(error))));
}

void write_all(int descriptor, std::string_view bytes, const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(descriptor, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) fail(path, "writing failed");
    bytes.remove_prefix(static_cast<size_t>(written));
  }
}

std::string folder_of(const std::string& path) {
  const std::string folder = std::filesystem::path(path).parent_path().string();
  return folder.empty() ? "." : folder;
}

// The step of a line of ours; -1 for anything else.
int64_t step_of_line(const std::string& line) {
  const nlohmann::json object = nlohmann::json::parse(line, nullptr, false);
  if (!object.is_object() || !object.contains("step") || !object["step"].is_number_integer()) return -1;
  return object["step"].get<int64_t>();
}

// The lines to keep, in order, each step once; sets `last` to the last step kept. `changed`: something was
// dropped.
std::string kept_lines(std::istream& in, int64_t last_step, int64_t& last, bool& changed) {
  std::string kept;
  for (std::string line; std::getline(in, line);) {
    const bool torn = in.eof();
    const int64_t step = step_of_line(line);
    if (torn || step <= last || step > last_step) {
      changed = true;
      continue;
    }
    last = step;
    kept += line + "\n";
  }
  return kept;
}

void replace_file(const std::string& path, const std::string& contents) {
  const std::string temporary = path + ".tmp";
  const int descriptor = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (descriptor < 0) fail(temporary, "cannot be written");
  try {
    write_all(descriptor, contents, temporary);
    if (::fsync(descriptor) != 0) fail(temporary, "cannot be flushed to the device");
  } catch (const TrainingError&) {
    ::close(descriptor);
    ::unlink(temporary.c_str());
    throw;
  }
  ::close(descriptor);
  if (::rename(temporary.c_str(), path.c_str()) != 0) fail(temporary, "cannot be renamed");
}

void append_number(std::string& line, const std::string& name, double value) {
  line += ", " + nlohmann::json(name).dump() + ": ";
  if (!std::isfinite(value)) {
    const char* what = std::isnan(value) ? "nan" : value > 0 ? "inf" : "-inf";
    line += "null, " + nlohmann::json(name + "_is").dump() + ": \"" + what + "\"";
    return;
  }
  char digits[32];
  std::snprintf(digits, sizeof digits, "%.17g", value);
  line += digits;
}

}  // namespace

std::string metrics_line(int64_t step, std::optional<double> loss, const NamedNumbers& numbers) {
  std::string line = text("{\"step\": ", step);
  if (loss) append_number(line, "loss", *loss);
  for (const auto& [name, value] : numbers) append_number(line, name, value);
  return line + "}";
}

MetricsLog::MetricsLog(const std::string& path, int64_t last_step) : path_(path), folder_(folder_of(path)) {
  bool changed = false;
  if (std::ifstream in(path, std::ios::binary); in.good()) {
    const std::string kept = kept_lines(in, last_step, last_step_, changed);
    if (changed) replace_file(path, kept);
  }
  descriptor_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (descriptor_ < 0) fail(path, "cannot be written");
  struct stat status {};
  if (::stat(folder_.c_str(), &status) != 0) fail(folder_, "cannot be read");
  device_ = status.st_dev;
  inode_ = status.st_ino;
}

void MetricsLog::expect_folder() const {
  struct stat status {};
  const bool there = ::stat(folder_.c_str(), &status) == 0;
  check<TrainingError>(there && status.st_dev == device_ && status.st_ino == inode_, one_line(folder_),
                       ": was removed or renamed while the run was writing to it");
}

MetricsLog::~MetricsLog() { ::close(descriptor_); }

void MetricsLog::append(int64_t step, std::optional<double> loss, const NamedNumbers& numbers) {
  expect_folder();
  check<TrainingError>(step > last_step_, path_, ": step ", step, " after step ", last_step_);
  write_all(descriptor_, metrics_line(step, loss, numbers) + "\n", path_);
  last_step_ = step;
}

void MetricsLog::sync() {
  expect_folder();
  if (::fsync(descriptor_) != 0) fail(path_, "cannot be flushed to the device");
}

}  // namespace longreach
