// An attention in Python as a contestant, and the environment that peers run in.
#include "train/bench/python_peer.h"

#include <filesystem>
#include <iostream>

#include "core/temporary_folder.h"
#include "train/bench/peer_process.h"

namespace longreach::bench {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kTorch = "torch==2.11.0";  // the release that this program links

class PythonPeer : public Contestant {
 public:
  PythonPeer(const BenchCase& bench_case, const Setting& setting, const Problem& problem)
      : problem_(problem), backward_(setting.backward()), process_(setting.peer, setting.threads) {
    json request = setting;
    request["op"] = "prepare";
    request["function"] = bench_case.for_peers(setting.heads);
    for (const auto& [name, tensor] : {std::pair("q", problem.q), std::pair("k", problem.k),
                                       std::pair("v", problem.v), std::pair("grad_o", problem.grad_o)}) {
      write_array(file(name), tensor);
      request["files"][name] = file(name);
    }
    for (const char* name : {"o", "dq", "dk", "dv"}) request["files"][name] = file(name);
    same_function_ = process_.ask(request).value("same_function", false);
  }

  Result result() override {
    process_.ask({{"op", "result"}});
    Result all{.o = read_array(file("o"), problem_.grad_o.sizes())};
    if (!backward_) return all;
    all.dq = read_array(file("dq"), problem_.q.sizes());
    all.dk = read_array(file("dk"), problem_.k.sizes());
    all.dv = read_array(file("dv"), problem_.v.sizes());
    return all;
  }

  Timing run(int64_t repeats) override {
    const json answer = process_.ask({{"op", "run"}, {"repeats", repeats}});
    return {answer.at("wall").get<double>(), answer.at("cpu").get<double>()};
  }

  bool same_function() const override { return same_function_; }

 private:
  std::string file(const char* name) const { return folder_.path(std::string(name) + ".f32"); }

  Problem problem_;
  bool backward_, same_function_ = false;
  const TemporaryFolder folder_{scratch_place()};
  PeerProcess process_;
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

std::unique_ptr<Contestant> python_peer(const BenchCase& bench_case, const Setting& setting,
                                        const Problem& problem) {
  return std::make_unique<PythonPeer>(bench_case, setting, problem);
}

void install_peers() {
  const std::string folder = peers_environment(), python = folder + "/bin/python";
  if (!fs::exists(python)) run_to_end({"python3", "-m", "venv", folder});
  run_to_end({python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", kTorch, "numpy"});
  run_to_end({python, "-c", "import torch; print('torch', torch.__version__, 'is ready')"});
}

}  // namespace longreach::bench
