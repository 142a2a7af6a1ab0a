#include "train/program/requeue.h"

#include <sys/wait.h>

#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <string_view>

#include "core/error.h"

namespace longreach {
namespace {

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// A number alone, so that it may stand in a command.
std::string job_id() {
  const std::string id = variable("SLURM_JOB_ID");
  return id.find_first_not_of("0123456789") == std::string::npos ? id : "";
}

struct Answer {
  int status = -1;
  std::string words;
};

Answer ask(const std::string& command) {
  Answer answer;
  std::FILE* pipe = ::popen((command + " 2>&1 </dev/null").c_str(), "re");
  if (pipe == nullptr) return answer;
  char part[256];
  while (const size_t count = std::fread(part, 1, sizeof part, pipe)) answer.words.append(part, count);
  answer.status = ::pclose(pipe);
  return answer;
}

}  // namespace

std::string slurm_job() {
  const std::string id = job_id(), count = variable("SLURM_RESTART_COUNT");
  if (id.empty()) return "";
  if (count.empty() || count == "0") return id;
  return text(id, ", started again ", one_line(count, 20), count == "1" ? " time" : " times");
}

void requeue_slurm_job() {
  const std::string id = job_id();
  if (id.empty()) return;
  const Answer answer = ask("scontrol requeue " + id);
  if (answer.status == 0) {
    std::cout << "requeued   Slurm's job " << id << ", which goes on from the checkpoint" << std::endl;
    return;
  }
  const std::string_view words = answer.words;
  std::cerr << "warning: Slurm's job " << id << " is not requeued: `scontrol requeue " << id << "`: "
            << (words.empty() ? "failed" : one_line(words.substr(0, words.find_last_not_of('\n') + 1), 200))
            << std::endl;
}

}  // namespace longreach
