#include "train/program/bench_models.h"

#include "core/error.h"

namespace longreach {

void add_size(CLI::App& app, const char* name, int64_t& value, const char* help) {
  app.add_option(name, value, help)->check(CLI::Range(int64_t{1}, int64_t{1} << 24))->capture_default_str();
}

void add_choices(CLI::App& app, std::vector<std::string>& peers, std::vector<std::string> known_peers,
                 std::vector<std::string>& dtypes, std::vector<int>& threads) {
  const std::vector<std::string> known_dtypes{"float32", "bfloat16"};
  known_peers.emplace_back("none");
  app.add_option("--peer", peers, text("peers: ", join(known_peers)))
      ->delimiter(',')
      ->check(CLI::IsMember(known_peers))
      ->capture_default_str();
  app.add_option("--dtype", dtypes, join(known_dtypes))
      ->delimiter(',')
      ->check(CLI::IsMember(known_dtypes))
      ->capture_default_str();
  app.add_option("--threads", threads, "thread counts; a fresh process each")
      ->delimiter(',')
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
}

void add_rounds_and_json(CLI::App& app, int& rounds, std::string& json_path) {
  app.add_option("--rounds", rounds, "alternations of ours and the peer")
      ->check(CLI::Range(1, 10000))
      ->capture_default_str();
  app.add_option("--json", json_path, "write machine and rows to this file");
}

void expect_heads(int64_t hidden_size, int64_t heads) {
  check<UserError>(hidden_size % heads == 0 && hidden_size / heads % 2 == 0, "--heads: found ", heads,
                   ", expected a divisor of --hidden-size = ", hidden_size,
                   " that leaves an even head dimension");
}

}  // namespace longreach
