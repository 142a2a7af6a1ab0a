// Runs the built program as a user would, and looks at what it leaves.
#pragma once
#include <sys/types.h>

#include <string>
#include <vector>

#include "core/temporary_folder.h"

namespace longreach::test {

struct ProgramResult {
  int code = 0;  // exit code; 128 + signal when killed
  std::string out, err;
};

// Any command, looked up in PATH.
ProgramResult run_command(const std::vector<std::string>& words);
ProgramResult run_program(const std::vector<std::string>& arguments);

// Starts the program without waiting; the caller waits with wait_program.
struct RunningProgram {
  pid_t pid = -1;
  std::string out_file, err_file;
};
RunningProgram start_command(std::vector<std::string> words, const TemporaryFolder& folder);
RunningProgram start_program(const std::vector<std::string>& arguments, const TemporaryFolder& folder);
ProgramResult wait_program(const RunningProgram& program);

std::string read_text(const std::string& path);

}  // namespace longreach::test
