// Another program, started without a shell, spoken to line by line.
#pragma once
#include <sys/types.h>

#include <string>
#include <utility>
#include <vector>

namespace longreach::bench {

class ChildProcess {
 public:
  // arguments[0] is looked up on PATH. `environment` is added to ours. Standard error is shared. Throws Error
  // when it cannot be started.
  ChildProcess(const std::vector<std::string>& arguments,
               const std::vector<std::pair<std::string, std::string>>& environment = {});
  ~ChildProcess();  // closes its input and waits for it
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  // Writes the line and a line feed. Throws Error when the process no longer reads.
  void write_line(const std::string& line);
  // False at the end of its output.
  bool read_line(std::string& line);
  // Closes its input and waits: the exit code, or 128 + the signal that ended it.
  int wait();

 private:
  void close_pipes();

  pid_t pid_ = -1;
  int input_ = -1, output_ = -1;
  std::string buffer_;
};

}  // namespace longreach::bench
