// Runs of the program on one rank and on several, and what they leave.
#pragma once
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "checkpoints/checkpoint.h"
#include "tests/support/program.h"
#include "tests/support/tiny_run.h"

namespace longreach::test {

using Words = std::vector<std::string>;

class Launch : public testing::Test {
 protected:
  // launcher: options of `launch`.
  Words words(int ranks, const std::string& run, const Words& overrides, const Words& launcher = {}) const {
    Words all;
    if (ranks > 1) all = {"launch", "--nproc", std::to_string(ranks)};
    all.insert(all.end(), launcher.begin(), launcher.end());
    for (const std::string& word : Words{"train", config_, "--job.dump_folder", folder_.path(run)})
      all.push_back(word);
    all.insert(all.end(), overrides.begin(), overrides.end());
    return all;
  }
  ProgramResult train(int ranks, const std::string& run, const Words& overrides = {},
                      const Words& launcher = {}) const {
    return run_program(words(ranks, run, overrides, launcher));
  }
  struct Meeting {
    int port;
    std::string host = "127.0.0.1";
  };
  // A rank that nobody launched, by torchrun's names.
  RunningProgram start_rank(int rank, const Meeting& at, const Words& overrides,
                            const Words& before = {"env"}) const {
    Words all = before;
    for (const std::string& word : {"RANK=" + std::to_string(rank), std::string("WORLD_SIZE=2"),
                                    "MASTER_ADDR=" + at.host, std::string("LOCAL_WORLD_SIZE=2"),
                                    "MASTER_PORT=" + std::to_string(at.port), std::string(LONGREACH_PROGRAM)})
      all.push_back(word);
    const Words run = words(1, "run", overrides);
    all.insert(all.end(), run.begin(), run.end());
    return start_command(all, folder_);
  }
  // Throws after five minutes without it.
  void wait_for_step(const std::string& run, size_t step) const {
    const auto end = std::chrono::steady_clock::now() + std::chrono::minutes(5);
    while (!std::filesystem::exists(folder_.path(run + "/metrics.jsonl")) ||
           losses(folder_.path(run)).size() < step) {
      if (std::chrono::steady_clock::now() > end)
        throw std::runtime_error(run + " did not come to step " + std::to_string(step));
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  }
  std::string newest_checkpoint(const std::string& run) const {
    std::string newest;
    for (const auto& entry : std::filesystem::directory_iterator(folder_.path(run + "/checkpoint")))
      newest = std::max(newest, entry.path().string());
    return newest;
  }
  // The bytes of each tensor of a run's newest checkpoint, however many ranks wrote it.
  std::map<std::string, std::string> tensors(const std::string& run) const {
    return tensors_of(newest_checkpoint(run));
  }
  static std::map<std::string, std::string> tensors_of(const std::string& checkpoint) {
    const CheckpointContents contents = load_checkpoint(checkpoint);
    std::map<std::string, std::string> bytes;
    for (const NamedTensors* tensors : {&contents.model, &contents.optimizer})
      for (const auto& [name, tensor] : *tensors)
        bytes[name] = std::string(static_cast<const char*>(tensor.const_data_ptr()), tensor.nbytes());
    return bytes;
  }
  void expect_same_run(const std::string& one, const std::string& other) const {
    EXPECT_EQ(losses(folder_.path(one)), losses(folder_.path(other)));
    EXPECT_TRUE(tensors(one) == tensors(other));
    EXPECT_FALSE(tensors(one).empty());
  }

  TemporaryFolder folder_;
  const std::string config_ = write_tiny_run(folder_);
};

inline size_t lines_with(const std::string& text, const std::string& part) {
  size_t count = 0;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) count += line.find(part) != std::string::npos ? 1 : 0;
  return count;
}

}  // namespace longreach::test
