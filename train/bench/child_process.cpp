// posix_spawn with two pipes.
#include "train/bench/child_process.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <filesystem>

#include "core/error.h"

extern char** environ;

namespace longreach::bench {
namespace {

// Our environment with the additions in place of older values.
std::vector<std::string> merged_environment(
    const std::vector<std::pair<std::string, std::string>>& additions) {
  std::vector<std::string> merged;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view one = *entry;
    bool replaced = false;
    for (const auto& [name, value] : additions) replaced = replaced || one.starts_with(name + "=");
    if (!replaced) merged.emplace_back(one);
  }
  for (const auto& [name, value] : additions) merged.push_back(name + "=" + value);
  return merged;
}

std::vector<char*> pointers(std::vector<std::string>& words) {
  std::vector<char*> result;
  for (std::string& word : words) result.push_back(word.data());
  result.push_back(nullptr);
  return result;
}

}  // namespace

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
  std::vector<std::string> words = arguments, settings = merged_environment(environment);
  const int failure = posix_spawnp(&pid_, arguments.at(0).c_str(), &actions, nullptr, pointers(words).data(),
                                   pointers(settings).data());
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

std::string this_program() {
  std::error_code failure;
  const auto path = std::filesystem::read_symlink("/proc/self/exe", failure);
  check<Error>(!failure, "/proc/self/exe: ", failure.message());
  return path.string();
}

}  // namespace longreach::bench
