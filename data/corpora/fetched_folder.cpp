// A package client fills a folder beside the wanted one; a rename makes it appear.
#include "data/corpora/fetched_folder.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>

#include "core/error.h"
#include "core/file_lock.h"
#include "data/common/files.h"

extern char** environ;

namespace longreach::data {
namespace fs = std::filesystem;
namespace {

// The folder is not there yet.
void fetch_new(const FetchedFolder& wanted, const std::string& folder) {
  const std::string work = folder + ".partial", result = work + "/result";
  std::error_code error;
  fs::remove_all(work, error);
  fs::create_directories(result, error);
  check<DataError>(!error, work, ": cannot be made: ", error.message());
  std::cerr << "fetching " << wanted.name << " (" << wanted.source << "; " << wanted.licence << ")\n";
  try {
    wanted.fetch(work, result);
    write_atomically(result + "/SOURCE.txt",
                     text(wanted.name, ": ", wanted.source, "; ", wanted.licence, "\n"));
    fs::rename(result, folder);
    fs::remove_all(work, error);
  } catch (const std::exception& failure) {
    fs::remove_all(work, error);
    throw DataError(
        one_line(text(wanted.name, ": cannot be fetched: ", failure.what(),
                      "; with a network (and after apt-get update), run: longreach ", wanted.command)));
  }
}

// The last line that says something, for an error message.
std::string last_line(const std::string& path) {
  std::ifstream in(path);
  std::string last;
  for (std::string line; std::getline(in, line);)
    if (line.find_first_not_of(" \t\r") != std::string::npos) last = line;
  return one_line(last, 300);
}

}  // namespace

void run_inside(const std::string& folder, std::vector<std::string> words) {
  const std::string log = folder + "/log.txt";
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, 1, log.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0666);
  posix_spawn_file_actions_adddup2(&actions, 1, 2);
  posix_spawn_file_actions_addchdir_np(&actions, folder.c_str());
  std::vector<char*> argv;
  for (auto& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  pid_t child = 0;
  const int error = posix_spawnp(&child, argv[0], &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  check<DataError>(error == 0, words[0], " cannot be run: ", std::strerror(error));
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  check<DataError>(WIFEXITED(status) && WEXITSTATUS(status) == 0, words[0], " failed: ", last_line(log));
}

void fetch_folder(const FetchedFolder& wanted, const std::string& folder) {
  const std::string marker = folder + "/SOURCE.txt";
  if (fs::exists(marker)) return;
  std::error_code error;
  fs::create_directories(fs::absolute(folder).parent_path(), error);
  const FileLock lock = FileLock::wait(folder + ".lock");
  if (fs::exists(marker)) return;
  check<DataError>(!fs::exists(folder) || fs::is_empty(folder, error), folder,
                   ": is there already and is not the ", wanted.name);
  fetch_new(wanted, folder);
}

}  // namespace longreach::data
