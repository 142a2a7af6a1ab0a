// Who a process is, from the variables of every engine, and what is refused.
#include "distributed/environment.h"

#include <gtest/gtest.h>

#include <map>

#include "core/error.h"
#include "tests/support/errors.h"

namespace longreach {
namespace {

using test::expect_error;
using Variables = std::map<std::string, std::string>;

Environment read(const Variables& variables) {
  return read_environment([&](const char* name) -> const char* {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  });
}

void expect_refused(const std::string& part, const Variables& variables) {
  expect_error<ConfigError>(part, [&] { read(variables); });
}

Variables with(Variables variables, const Variables& more) {
  for (const auto& [name, value] : more) variables[name] = value;
  return variables;
}

void expect_place(const Environment& found, int rank, int world, int local_rank, int local_world) {
  EXPECT_EQ(found.rank, rank);
  EXPECT_EQ(found.world, world);
  EXPECT_EQ(found.local_rank, local_rank);
  EXPECT_EQ(found.local_world, local_world);
}

void expect_alone(const Environment& found) {
  expect_place(found, 0, 1, 0, 1);
  EXPECT_EQ(found.master_host, "");
  EXPECT_EQ(found.master_port, 0);
}

TEST(Environment, NoEngineIsOneRank) {
  expect_alone(read({}));
  expect_alone(read({{"MASTER_ADDR", "elsewhere"}, {"LOCAL_RANK", "3"}}));
  expect_alone(read({{"RANK", ""}, {"WORLD_SIZE", ""}}));
  EXPECT_FALSE(read({}).store_is_held);
  EXPECT_EQ(read({}).restart, 0);
}

TEST(Environment, OfTorchrun) {
  const Environment found = read({{"RANK", "5"},
                                  {"WORLD_SIZE", "8"},
                                  {"LOCAL_RANK", "1"},
                                  {"LOCAL_WORLD_SIZE", "4"},
                                  {"MASTER_ADDR", "node3"},
                                  {"MASTER_PORT", "4711"},
                                  {"TORCHELASTIC_RESTART_COUNT", "2"},
                                  {"TORCHELASTIC_USE_AGENT_STORE", "True"}});
  expect_place(found, 5, 8, 1, 4);
  EXPECT_EQ(found.master_host, "node3");
  EXPECT_EQ(found.master_port, 4711);
  EXPECT_EQ(found.restart, 2);
  EXPECT_TRUE(found.store_is_held);
}

TEST(Environment, ByHand) {
  const Variables two = {{"RANK", "1"}, {"WORLD_SIZE", "2"}};
  expect_place(read(two), 1, 2, 1, 2);
  EXPECT_EQ(read(two).master_host, "127.0.0.1");
  EXPECT_EQ(read(two).master_port, 29500);
  EXPECT_FALSE(read(with(two, {{"TORCHELASTIC_USE_AGENT_STORE", "False"}})).store_is_held);
  EXPECT_EQ(read(with(two, {{"MASTER_PORT", "1234"}})).master_port, 1234);
  const Environment remote = read(with(two, {{"MASTER_ADDR", "host"}, {"LOCAL_WORLD_SIZE", "1"}}));
  expect_place(remote, 1, 2, 0, 1);
  EXPECT_EQ(remote.master_host, "host");
  EXPECT_EQ(remote.master_port, 29500);
  expect_alone(read({{"RANK", "0"}, {"WORLD_SIZE", "1"}}));
}

TEST(Environment, OfOpenMpi) {
  const Variables one_machine = {{"OMPI_COMM_WORLD_RANK", "1"},       {"OMPI_COMM_WORLD_SIZE", "2"},
                                 {"OMPI_COMM_WORLD_LOCAL_RANK", "1"}, {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"},
                                 {"PMIX_NAMESPACE", "2456092673"},    {"PMIX_RANK", "1"}};
  const Environment found = read(one_machine);
  expect_place(found, 1, 2, 1, 2);
  EXPECT_EQ(found.master_host, "127.0.0.1");
  EXPECT_GE(found.master_port, 1024);
  EXPECT_LT(found.master_port, 32768);
  EXPECT_FALSE(found.store_is_held);
  const Environment other = read(with(
      one_machine, {{"OMPI_COMM_WORLD_RANK", "0"}, {"OMPI_COMM_WORLD_LOCAL_RANK", "0"}, {"PMIX_RANK", "0"}}));
  EXPECT_EQ(other.master_port, found.master_port);
  EXPECT_NE(read(with(one_machine, {{"PMIX_NAMESPACE", "2456092674"}})).master_port, found.master_port);
  EXPECT_EQ(read(with(one_machine, {{"MASTER_PORT", "99"}})).master_port, 99);

  const Variables two_machines =
      with(one_machine, {{"OMPI_COMM_WORLD_LOCAL_RANK", "0"}, {"OMPI_COMM_WORLD_LOCAL_SIZE", "1"}});
  expect_refused("mpirun -x MASTER_ADDR=HOST", two_machines);
  const Environment remote = read(with(two_machines, {{"MASTER_ADDR", "n1"}}));
  EXPECT_EQ(remote.master_host, "n1");
  EXPECT_EQ(remote.master_port, found.master_port);
}

const Variables kSlurmStep = {{"SLURM_JOB_ID", "77"},        {"SLURM_STEP_ID", "3"},
                              {"SLURM_NTASKS", "4"},         {"SLURM_PROCID", "1"},
                              {"SLURM_LOCALID", "1"},        {"SLURM_NODEID", "0"},
                              {"SLURM_STEP_NUM_TASKS", "4"}, {"SLURM_STEP_TASKS_PER_NODE", "4"},
                              {"SLURM_STEP_NODELIST", "n07"}};

TEST(Environment, OfASlurmStepOnOneMachine) {
  const Environment found = read(kSlurmStep);
  expect_place(found, 1, 4, 1, 4);
  EXPECT_EQ(found.master_host, "127.0.0.1");
  EXPECT_GE(found.master_port, 1024);
  EXPECT_LT(found.master_port, 32768);
  EXPECT_NE(read(with(kSlurmStep, {{"SLURM_STEP_ID", "4"}})).master_port, found.master_port);
  EXPECT_NE(read(with(kSlurmStep, {{"SLURM_JOB_ID", "78"}})).master_port, found.master_port);
}

TEST(Environment, OfASlurmStepOnSeveralMachines) {
  const Variables last = with(kSlurmStep, {{"SLURM_PROCID", "6"},
                                           {"SLURM_LOCALID", "0"},
                                           {"SLURM_NODEID", "3"},
                                           {"SLURM_STEP_NUM_TASKS", "7"},
                                           {"SLURM_STEP_TASKS_PER_NODE", "2(x3),1"},
                                           {"SLURM_STEP_NODELIST", "n[11-12,15],m1"}});
  const Environment found = read(last);
  expect_place(found, 6, 7, 0, 1);
  EXPECT_EQ(found.master_host, "n11");
  const Environment third =
      read(with(last, {{"SLURM_PROCID", "5"}, {"SLURM_LOCALID", "1"}, {"SLURM_NODEID", "2"}}));
  expect_place(third, 5, 7, 1, 2);
  EXPECT_EQ(third.master_port, found.master_port);
  const std::map<std::string, std::string> first = {{"a", "a"},
                                                    {"a,b", "a"},
                                                    {"n[1-2,5]", "n1"},
                                                    {"n[007-012]", "n007"},
                                                    {"n[5,7],m", "n5"},
                                                    {"n[3],m[1-2]", "n3"},
                                                    {"r[1-2]n[4-9]-ib", "r1n4-ib"}};
  for (const auto& [nodes, host] : first)
    EXPECT_EQ(read(with(last, {{"SLURM_STEP_NODELIST", nodes}})).master_host, host) << nodes;
  EXPECT_EQ(read(with(last, {{"MASTER_ADDR", "10.0.0.1"}})).master_host, "10.0.0.1");
  expect_refused("SLURM_STEP_NODELIST names no host", with(last, {{"SLURM_STEP_NODELIST", ""}}));
}

TEST(Environment, ABatchScriptIsOneRank) {
  expect_alone(read({{"SLURM_JOB_ID", "77"},
                     {"SLURM_NTASKS", "4"},
                     {"SLURM_PROCID", "0"},
                     {"SLURM_LOCALID", "0"},
                     {"SLURM_JOB_NODELIST", "n[1-2]"}}));
  expect_alone(read(with(kSlurmStep, {{"SLURM_STEP_NUM_TASKS", "1"}, {"SLURM_PROCID", "0"}})));
}

TEST(Environment, OfMpich) {
  const Variables one_machine = {
      {"PMI_RANK", "2"}, {"PMI_SIZE", "3"}, {"MPI_LOCALRANKID", "2"}, {"MPI_LOCALNRANKS", "3"}};
  expect_place(read(one_machine), 2, 3, 2, 3);
  EXPECT_EQ(read(one_machine).master_host, "127.0.0.1");
  EXPECT_EQ(read(one_machine).master_port, 29500);
  EXPECT_LT(read(with(one_machine, {{"PMI_JOBID", "8"}})).master_port, 29500 + 2500);
  expect_refused("mpirun -genv MASTER_ADDR HOST",
                 with(one_machine, {{"MPI_LOCALRANKID", "0"}, {"MPI_LOCALNRANKS", "1"}}));
  expect_refused("mpirun -genv MASTER_ADDR HOST", {{"PMI_RANK", "2"}, {"PMI_SIZE", "3"}});
  EXPECT_EQ(read({{"PMI_RANK", "2"}, {"PMI_SIZE", "3"}, {"MASTER_ADDR", "n1"}}).master_host, "n1");
}

TEST(Environment, TheFirstEngineThatSpeaksIsObeyed) {
  const Variables open_mpi = {{"OMPI_COMM_WORLD_RANK", "0"},
                              {"OMPI_COMM_WORLD_SIZE", "2"},
                              {"OMPI_COMM_WORLD_LOCAL_RANK", "0"},
                              {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}};
  const Variables all = with(with(kSlurmStep, open_mpi), {{"PMI_RANK", "2"}, {"PMI_SIZE", "3"}});
  EXPECT_EQ(read(all).world, 2);
  EXPECT_EQ(read(with(all, {{"RANK", "4"}, {"WORLD_SIZE", "5"}})).rank, 4);
  EXPECT_EQ(read(with(kSlurmStep, {{"PMI_RANK", "2"}, {"PMI_SIZE", "3"}})).world, 4);
}

TEST(Environment, SaysWhatIsWrong) {
  const Variables two = {{"RANK", "1"}, {"WORLD_SIZE", "2"}};
  expect_refused("RANK is set and WORLD_SIZE is not", {{"RANK", "1"}});
  expect_refused("WORLD_SIZE is set and RANK is not", {{"WORLD_SIZE", "2"}});
  expect_refused("OMPI_COMM_WORLD_RANK is set and OMPI_COMM_WORLD_SIZE is not",
                 {{"OMPI_COMM_WORLD_RANK", "0"}});
  expect_refused("SLURM_STEP_NUM_TASKS is set and SLURM_PROCID is not", {{"SLURM_STEP_NUM_TASKS", "2"}});
  expect_refused("PMI_SIZE is set and PMI_RANK is not", {{"PMI_SIZE", "2"}});
  expect_refused("RANK is 2, expected less than WORLD_SIZE, which is 2", with(two, {{"RANK", "2"}}));
  expect_refused("RANK is `-1`, expected a whole number of at least 0", with(two, {{"RANK", "-1"}}));
  expect_refused("RANK is `1.5`", with(two, {{"RANK", "1.5"}}));
  expect_refused("RANK is `99999999999`", with(two, {{"RANK", "99999999999"}}));
  expect_refused("WORLD_SIZE is `two`", with(two, {{"WORLD_SIZE", "two"}}));
  expect_refused("WORLD_SIZE is `0`, expected a whole number of at least 1",
                 with(two, {{"WORLD_SIZE", "0"}}));
  expect_refused("WORLD_SIZE is `2 x`", with(two, {{"WORLD_SIZE", "2\nx"}}));
  expect_refused("LOCAL_WORLD_SIZE is `3`, expected a whole number of at least 1 and at most 2",
                 with(two, {{"LOCAL_WORLD_SIZE", "3"}}));
  expect_refused("LOCAL_RANK is `2`, expected a whole number of at least 0 and at most 1",
                 with(two, {{"LOCAL_RANK", "2"}}));
  expect_refused("MASTER_ADDR is not set and the 2 ranks are on several machines: give every rank",
                 with(two, {{"LOCAL_WORLD_SIZE", "1"}, {"LOCAL_RANK", "0"}}));
  for (const char* port : {"0", "65536", "http"})
    expect_refused("MASTER_PORT is `", with(two, {{"MASTER_PORT", port}}));
  expect_refused("TORCHELASTIC_RESTART_COUNT is `-1`", {{"TORCHELASTIC_RESTART_COUNT", "-1"}});
}

}  // namespace
}  // namespace longreach
