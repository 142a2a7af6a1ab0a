// Runs the built program as a user would, and looks at what it leaves.
#pragma once
#include <sys/types.h>

#include <filesystem>
#include <string>
#include <vector>

namespace longreach::test {

struct ProgramResult {
  int code = 0;  // exit code; 128 + signal when killed
  std::string out, err;
};

// A folder of its own under the system's temporary folder, removed at the end.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  std::string path(const std::string& name = "") const {
    return name.empty() ? folder_.string() : (folder_ / name).string();
  }
  std::string write(const std::string& name, const std::string& contents) const;  // returns the path

 private:
  std::filesystem::path folder_;
};

ProgramResult run_program(const std::vector<std::string>& arguments);

// Starts the program without waiting; the caller waits with wait_program.
struct RunningProgram {
  pid_t pid = -1;
  std::string out_file, err_file;
};
RunningProgram start_program(const std::vector<std::string>& arguments, const TemporaryFolder& folder);
ProgramResult wait_program(const RunningProgram& program);

std::string read_text(const std::string& path);

}  // namespace longreach::test
