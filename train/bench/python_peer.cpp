// The pipe to a Python peer: one JSON object a line each way. tests/benchmarks/peers/protocol.py is the other
// end.
#include "train/bench/python_peer.h"

#include <ATen/ops/empty.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>

#include "core/temporary_folder.h"
#include "train/bench/child_process.h"

namespace longreach::bench {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kTorch = "torch==2.11.0";  // the release that this program links

// In memory where the system has such a place.
fs::path scratch_place() {
  std::error_code ignored;
  return fs::is_directory("/dev/shm", ignored) ? fs::path("/dev/shm") : fs::temp_directory_path();
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

// Beside the sources: above build/bin, or under the current folder.
fs::path script_of(const std::string& name) {
  const fs::path relative = fs::path("tests") / "benchmarks" / "peers" / (name + ".py");
  const fs::path root = fs::path(this_program()).parent_path().parent_path().parent_path();
  for (const fs::path& base : {root, root.parent_path(), fs::current_path()}) {
    if (fs::exists(base / relative)) return base / relative;
  }
  throw UserError(text("peer ", name, ": ", relative.string(), " is not found; run from the source folder"));
}

class PythonPeer : public Contestant {
 public:
  PythonPeer(const BenchCase& bench_case, const Setting& setting, const Problem& problem)
      : name_(setting.peer),
        problem_(problem),
        backward_(setting.backward()),
        process_({peers_environment() + "/bin/python", "-u", script_of(setting.peer).string()},
                 {{"OMP_NUM_THREADS", std::to_string(setting.threads)},
                  {"MKL_NUM_THREADS", std::to_string(setting.threads)}}) {
    json request = setting;
    request["op"] = "prepare";
    request["function"] = bench_case.for_peers(setting.heads);
    for (const auto& [name, tensor] : {std::pair("q", problem.q), std::pair("k", problem.k),
                                       std::pair("v", problem.v), std::pair("grad_o", problem.grad_o)}) {
      write_array(file(name), tensor);
      request["files"][name] = file(name);
    }
    for (const char* name : {"o", "dq", "dk", "dv"}) request["files"][name] = file(name);
    same_function_ = ask(request).value("same_function", false);
  }

  Result result() override {
    ask({{"op", "result"}});
    Result all{.o = read_array(file("o"), problem_.grad_o.sizes())};
    if (!backward_) return all;
    all.dq = read_array(file("dq"), problem_.q.sizes());
    all.dk = read_array(file("dk"), problem_.k.sizes());
    all.dv = read_array(file("dv"), problem_.v.sizes());
    return all;
  }

  Timing run(int64_t repeats) override {
    const json answer = ask({{"op", "run"}, {"repeats", repeats}});
    return {answer.at("wall").get<double>(), answer.at("cpu").get<double>()};
  }

  bool same_function() const override { return same_function_; }

 private:
  std::string file(const char* name) const { return folder_.path(std::string(name) + ".f32"); }

  json ask(const json& request) {
    process_.write_line(request.dump());
    std::string line;
    check<Error>(process_.read_line(line), "peer ", name_, ": ended without an answer to ",
                 request.at("op").get<std::string>());
    const json answer = json::parse(line, nullptr, false);
    check<Error>(answer.is_object(), "peer ", name_, ": not an answer: ", one_line(line, 200));
    check<UserError>(!answer.contains("error"), "peer ", name_, ": ",
                     one_line(answer.value("error", ""), 800));
    return answer;
  }

  std::string name_;
  Problem problem_;
  bool backward_, same_function_ = false;
  const TemporaryFolder folder_{scratch_place()};
  ChildProcess process_;
};

void run_to_end(const std::vector<std::string>& command) {
  std::cout << join(command, " ") << std::endl;
  ChildProcess process(command);
  for (std::string line; process.read_line(line);) std::cout << "  " << one_line(line, 160) << std::endl;
  const int code = process.wait();
  check<UserError>(code == 0, "bench --install-peers: `", join(command, " "), "` failed with exit code ",
                   code);
}

}  // namespace

std::vector<std::string> python_peer_names() { return {"sdpa_eager", "sdpa_compile", "flex", "fla_chunk"}; }

std::string peers_environment() {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  const fs::path base =
      cache != nullptr && *cache != '\0' ? fs::path(cache) : fs::path(home ? home : ".") / ".cache";
  return (base / "longreach" / "peers").string();
}

std::unique_ptr<Contestant> python_peer(const BenchCase& bench_case, const Setting& setting,
                                        const Problem& problem) {
  check<UserError>(fs::exists(fs::path(peers_environment()) / "bin" / "python"), "peer ", setting.peer,
                   ": no Python environment in ", peers_environment(),
                   "; make it with `longreach bench --install-peers`");
  return std::make_unique<PythonPeer>(bench_case, setting, problem);
}

void install_peers() {
  const std::string folder = peers_environment(), python = folder + "/bin/python";
  if (!fs::exists(python)) run_to_end({"python3", "-m", "venv", folder});
  run_to_end({python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", kTorch, "numpy"});
  run_to_end({python, "-c", "import torch; print('torch', torch.__version__, 'is ready')"});
}

}  // namespace longreach::bench
