#include "distributed/environment.h"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <optional>
#include <string_view>

#include "core/error.h"

namespace longreach {
namespace {

constexpr int kLargest = std::numeric_limits<int>::max();
constexpr int kTorchPort = 29500;  // torchrun's

class Variables {
 public:
  explicit Variables(const std::function<const char*(const char*)>& get) : get_(get) {}

  std::string value(const char* name) const {
    const char* found = get_(name);
    return found == nullptr ? "" : found;
  }
  bool has(const char* name) const { return !value(name).empty(); }

  std::optional<int> number(const char* name, int least, int most) const {
    const std::string found = value(name);
    if (found.empty()) return std::nullopt;
    int number = 0;
    const auto [end, error] = std::from_chars(found.data(), found.data() + found.size(), number);
    const bool whole = error == std::errc{} && end == found.data() + found.size();
    const std::string upper = most == kLargest ? "" : text(" and at most ", most);
    check<ConfigError>(whole && number >= least && number <= most, name, " is `", one_line(found, 60),
                       "`, expected a whole number of at least ", least, upper);
    return number;
  }

 private:
  const std::function<const char*(const char*)>& get_;
};

// What one engine sets. `job`: whose values together are the job's number; null: nothing more.
struct Engine {
  const char *rank, *world, *local_rank, *local_world;
  const char* job[2];
  const char* advice;
};
constexpr Engine kTorch{"RANK",       "WORLD_SIZE",
                        "LOCAL_RANK", "LOCAL_WORLD_SIZE",
                        {},           "give every rank MASTER_ADDR=HOST, the host of rank 0"};
constexpr Engine kOpenMpi{
    "OMPI_COMM_WORLD_RANK",       "OMPI_COMM_WORLD_SIZE",
    "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE",
    {"PMIX_NAMESPACE"},           "give the host of rank 0: `mpirun -x MASTER_ADDR=HOST`"};
constexpr Engine kSlurm{"SLURM_PROCID",
                        "SLURM_STEP_NUM_TASKS",
                        "SLURM_LOCALID",
                        nullptr,
                        {"SLURM_JOB_ID", "SLURM_STEP_ID"},
                        "SLURM_STEP_NODELIST names no host: set MASTER_ADDR=HOST, the host of rank 0"};
constexpr Engine kMpich{"PMI_RANK",        "PMI_SIZE",
                        "MPI_LOCALRANKID", "MPI_LOCALNRANKS",
                        {"PMI_JOBID"},     "give the host of rank 0: `mpirun -genv MASTER_ADDR HOST`"};

// "2(x3),1" is 2, 2, 2, 1: the tasks of node number `node` of a Slurm step; 0 where that cannot be read.
int tasks_of_node(std::string_view tasks_per_node, int node) {
  while (!tasks_per_node.empty()) {
    const std::string_view group = tasks_per_node.substr(0, tasks_per_node.find(','));
    int tasks = 0, nodes = 1;
    std::from_chars(group.data(), group.data() + group.size(), tasks);
    if (const size_t times = group.find("(x"); times != std::string_view::npos)
      std::from_chars(group.data() + times + 2, group.data() + group.size(), nodes);
    if (node < nodes) return tasks;
    node -= nodes;
    tasks_per_node.remove_prefix(std::min(group.size() + 1, tasks_per_node.size()));
  }
  return 0;
}

// "n[1-2,5],m7" begins with n1, "n07" is itself.
std::string first_host(const std::string& nodes) {
  std::string host;
  bool inside = false;
  for (size_t i = 0; i < nodes.size(); ++i) {
    const char letter = nodes[i];
    if (letter == '[') {
      inside = true;
    } else if (inside && (letter == '-' || letter == ',')) {
      i = std::min(nodes.find(']', i), nodes.size());
      inside = false;
    } else if (letter == ']') {
      inside = false;
    } else if (letter == ',') {
      break;
    } else {
      host += letter;
    }
  }
  return host;
}

// Below the ports that systems lend by themselves (Linux: from 32768 on), and the same on every rank.
int port_of_job(std::string_view job) {
  uint32_t hash = 2166136261u;  // FNV-1a
  for (const char letter : job) hash = (hash ^ static_cast<unsigned char>(letter)) * 16777619u;
  return 20000 + static_cast<int>(hash % 12000);
}

// Null: none has started us.
const Engine* engine_of(const Variables& variables) {
  for (const Engine* engine : {&kTorch, &kOpenMpi})
    if (variables.has(engine->rank) || variables.has(engine->world)) return engine;
  if (variables.number(kSlurm.world, 1, kLargest).value_or(1) > 1) return &kSlurm;
  return variables.has(kMpich.rank) || variables.has(kMpich.world) ? &kMpich : nullptr;
}

int required(const Variables& variables, const char* name, const char* partner, int least, int most) {
  const auto number = variables.number(name, least, most);
  check<ConfigError>(number.has_value(), partner, " is set and ", name, " is not: ranks of a job need both");
  return *number;
}

void read_ranks(const Variables& variables, const Engine& engine, Environment& found) {
  found.world = required(variables, engine.world, engine.rank, 1, kLargest);
  found.rank = required(variables, engine.rank, engine.world, 0, kLargest);
  check<ConfigError>(found.rank < found.world, engine.rank, " is ", found.rank, ", expected less than ",
                     engine.world, ", which is ", found.world);
  if (&engine == &kSlurm) {
    const int node = variables.number("SLURM_NODEID", 0, kLargest).value_or(0);
    const int tasks = tasks_of_node(variables.value("SLURM_STEP_TASKS_PER_NODE"), node);
    found.local_world = tasks > 0 ? tasks : found.world;
  } else {
    found.local_world = variables.number(engine.local_world, 1, found.world).value_or(found.world);
  }
  found.local_rank =
      variables.number(engine.local_rank, 0, found.local_world - 1).value_or(found.rank % found.local_world);
}

// MPICH's siblings that do not say how many ranks share a machine may have started them on several.
bool on_one_machine(const Variables& variables, const Engine& engine, const Environment& found) {
  return found.local_world == found.world && (&engine != &kMpich || variables.has(engine.local_world));
}

void find_master(const Variables& variables, const Engine& engine, Environment& found) {
  if (found.world == 1) return;
  found.master_host = variables.value("MASTER_ADDR");
  if (found.master_host.empty() && on_one_machine(variables, engine, found)) found.master_host = "127.0.0.1";
  if (found.master_host.empty() && &engine == &kSlurm)
    found.master_host = first_host(variables.value("SLURM_STEP_NODELIST"));
  check<ConfigError>(!found.master_host.empty(), "MASTER_ADDR is not set and the ", found.world,
                     " ranks are on several machines: ", engine.advice);
  std::string job;
  for (const char* name : engine.job)
    if (name != nullptr) job += variables.value(name) + ".";
  const bool numbered = job.find_first_not_of('.') != std::string::npos;
  found.master_port =
      variables.number("MASTER_PORT", 1, 65535).value_or(numbered ? port_of_job(job) : kTorchPort);
}

}  // namespace

Environment read_environment(const std::function<const char*(const char*)>& variable) {
  const Variables variables(variable);
  Environment found;
  found.restart = variables.number("TORCHELASTIC_RESTART_COUNT", 0, kLargest).value_or(0);
  found.store_is_held = variables.value("TORCHELASTIC_USE_AGENT_STORE") == "True";
  const Engine* engine = engine_of(variables);
  if (engine == nullptr) return found;
  read_ranks(variables, *engine, found);
  find_master(variables, *engine, found);
  return found;
}

Environment read_environment() {
  return read_environment([](const char* name) -> const char* { return std::getenv(name); });
}

}  // namespace longreach
