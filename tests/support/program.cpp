#include "tests/support/program.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <sstream>

#include "core/error.h"

namespace longreach::test {

namespace fs = std::filesystem;

std::string read_text(const std::string& path) {
  std::ostringstream contents;
  contents << std::ifstream(path, std::ios::binary).rdbuf();
  return contents.str();
}

RunningProgram start_command(std::vector<std::string> words, const TemporaryFolder& folder) {
  static std::atomic<int> count{0};
  const std::string stem = folder.path(text("program-", count++));
  RunningProgram program{.out_file = stem + ".out", .err_file = stem + ".err"};
  std::vector<char*> argv;
  for (auto& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  program.pid = fork();
  if (program.pid == 0) {
    const int out = open(program.out_file.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    const int err = open(program.err_file.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    dup2(out, STDOUT_FILENO);
    dup2(err, STDERR_FILENO);
    // What the test itself was started with (`nohup`, a runner that ignores SIGPIPE) is not the program's.
    for (const int signal : {SIGHUP, SIGINT, SIGPIPE, SIGTERM, SIGUSR1}) ::signal(signal, SIG_DFL);
    execvp(argv[0], argv.data());
    _exit(127);
  }
  return program;
}

RunningProgram start_program(const std::vector<std::string>& arguments, const TemporaryFolder& folder) {
  std::vector<std::string> words = {LONGREACH_PROGRAM};
  words.insert(words.end(), arguments.begin(), arguments.end());
  return start_command(words, folder);
}

ProgramResult wait_program(const RunningProgram& program) {
  int status = 0;
  waitpid(program.pid, &status, 0);
  const int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return {code, read_text(program.out_file), read_text(program.err_file)};
}

ProgramResult run_command(const std::vector<std::string>& words) {
  const TemporaryFolder folder;
  return wait_program(start_command(words, folder));
}

ProgramResult run_program(const std::vector<std::string>& arguments) {
  const TemporaryFolder folder;
  return wait_program(start_program(arguments, folder));
}

}  // namespace longreach::test
