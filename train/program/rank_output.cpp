#include "train/program/rank_output.h"

#include <fcntl.h>
#include <unistd.h>

#include <filesystem>
#include <iostream>

#include "core/error.h"

namespace longreach {

RankOutput::RankOutput(const std::string& folder, int rank) {
  std::error_code error;
  std::filesystem::create_directories(folder + "/ranks", error);
  const std::string path = text(folder, "/ranks/rank-", rank, ".log");
  const int log = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  file_.open(path, std::ios::app);
  check<ConfigError>(log >= 0 && file_.is_open(), path, ": cannot be written");
  std::cout << std::flush;
  stdout_before_ = ::dup(STDOUT_FILENO);
  ::dup2(log, STDOUT_FILENO);
  ::close(log);
  cerr_before_ = std::cerr.rdbuf(file_.rdbuf());
}

RankOutput::~RankOutput() {
  std::cout << std::flush;
  std::fflush(stdout);
  ::dup2(stdout_before_, STDOUT_FILENO);
  ::close(stdout_before_);
  std::cerr.rdbuf(cerr_before_);
}

}  // namespace longreach
