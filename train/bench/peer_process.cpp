#include "train/bench/peer_process.h"

#include <ATen/ops/empty.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "core/error.h"
#include "core/exec_words.h"

namespace longreach::bench {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// Beside the sources: above build/bin, or under the current folder.
fs::path script_of(const std::string& name) {
  const fs::path relative = fs::path("tests") / "benchmarks" / "peers" / (name + ".py");
  const fs::path root = fs::path(this_program()).parent_path().parent_path().parent_path();
  for (const fs::path& base : {root, root.parent_path(), fs::current_path()}) {
    if (fs::exists(base / relative)) return base / relative;
  }
  throw UserError(text("peer ", name, ": ", relative.string(), " is not found; run from the source folder"));
}

std::string python_for(const std::string& name) {
  const fs::path python = fs::path(peers_environment()) / "bin" / "python";
  check<UserError>(fs::exists(python), "peer ", name, ": no Python environment in ", peers_environment(),
                   "; make it with `longreach bench --install-peers`");
  return python.string();
}

}  // namespace

std::string scratch_place() {
  std::error_code ignored;
  return fs::is_directory("/dev/shm", ignored) ? "/dev/shm" : fs::temp_directory_path().string();
}

void write_array(const std::string& path, const at::Tensor& tensor) {
  const at::Tensor values = tensor.to(at::kFloat).contiguous();
  std::ofstream file(path, std::ios::binary);
  file.write(static_cast<const char*>(values.const_data_ptr()),
             static_cast<std::streamsize>(values.nbytes()));
  file.flush();
  check<Error>(file.good(), path, ": cannot be written");
}

at::Tensor read_array(const std::string& path, at::IntArrayRef shape) {
  at::Tensor values = at::empty(shape, at::kFloat);
  std::ifstream file(path, std::ios::binary);
  file.read(static_cast<char*>(values.mutable_data_ptr()), static_cast<std::streamsize>(values.nbytes()));
  check<Error>(file.good(), path, ": the peer's result is missing or short");
  return values;
}

std::string peers_environment() {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  const fs::path base =
      cache != nullptr && *cache != '\0' ? fs::path(cache) : fs::path(home ? home : ".") / ".cache";
  return (base / "longreach" / "peers").string();
}

PeerProcess::PeerProcess(const std::string& script, int threads)
    : name_(script),
      process_({python_for(script), "-u", script_of(script).string()},
               {{"OMP_NUM_THREADS", std::to_string(threads)}, {"MKL_NUM_THREADS", std::to_string(threads)}}) {
}

json PeerProcess::ask(const json& request) {
  process_.write_line(request.dump());
  std::string line;
  check<Error>(process_.read_line(line), "peer ", name_, ": ended without an answer to ",
               request.at("op").get<std::string>());
  const json answer = json::parse(line, nullptr, false);
  check<Error>(answer.is_object(), "peer ", name_, ": not an answer: ", one_line(line, 200));
  check<UserError>(!answer.contains("error"), "peer ", name_, ": ", one_line(answer.value("error", ""), 800));
  return answer;
}

}  // namespace longreach::bench
