// posix_spawn with two pipes.
#include "train/bench/child_process.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>

#include "core/error.h"
#include "core/exec_words.h"

namespace longreach::bench {

ChildProcess::ChildProcess(const std::vector<std::string>& arguments,
                           const std::vector<std::pair<std::string, std::string>>& environment) {
  int to_child[2], from_child[2];
  check<Error>(pipe2(to_child, O_CLOEXEC) == 0, "cannot make a pipe: ", std::strerror(errno));
  if (pipe2(from_child, O_CLOEXEC) != 0) {
    close(to_child[0]);
    close(to_child[1]);
    throw Error(text("cannot make a pipe: ", std::strerror(errno)));
  }
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, to_child[0], STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, from_child[1], STDOUT_FILENO);
  std::vector<std::string> words = arguments, settings = environment_with(environment);
  const int failure = posix_spawnp(&pid_, arguments.at(0).c_str(), &actions, nullptr,
                                   exec_pointers(words).data(), exec_pointers(settings).data());
  posix_spawn_file_actions_destroy(&actions);
  close(to_child[0]);
  close(from_child[1]);
  input_ = to_child[1];
  output_ = from_child[0];
  if (failure != 0) {
    pid_ = -1;
    close_pipes();
    throw Error(text(one_line(arguments[0]), ": cannot be started: ", std::strerror(failure)));
  }
}

ChildProcess::~ChildProcess() {
  close_pipes();
  if (pid_ > 0) waitpid(pid_, nullptr, 0);
}

void ChildProcess::close_pipes() {
  if (input_ >= 0) close(input_);
  if (output_ >= 0) close(output_);
  input_ = output_ = -1;
}

void ChildProcess::write_line(const std::string& line) {
  const std::string whole = line + "\n";
  // A process that is gone must be an error of this call, not a signal that ends us.
  auto* const previous = std::signal(SIGPIPE, SIG_IGN);
  size_t written = 0;
  while (written < whole.size()) {
    const ssize_t count = ::write(input_, whole.data() + written, whole.size() - written);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) break;
    written += static_cast<size_t>(count);
  }
  std::signal(SIGPIPE, previous);
  check<Error>(written == whole.size(), "a started process ended before it was asked to");
}

bool ChildProcess::read_line(std::string& line) {
  for (;;) {
    const size_t end = buffer_.find('\n');
    if (end != std::string::npos) {
      line = buffer_.substr(0, end);
      buffer_.erase(0, end + 1);
      return true;
    }
    char block[4096];
    const ssize_t count = ::read(output_, block, sizeof block);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return false;
    buffer_.append(block, static_cast<size_t>(count));
  }
}

int ChildProcess::wait() {
  if (input_ >= 0) close(input_);
  input_ = -1;
  int status = 0;
  while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  pid_ = -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace longreach::bench
