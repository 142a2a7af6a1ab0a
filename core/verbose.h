// What `-v` asks for: lines on standard error that say what the program does and how long that took.
#pragma once
#include <chrono>
#include <string>

namespace longreach {

bool verbose();
void set_verbose(bool wanted);

// A piece of work worth a line. Writes "WHAT: 0.31 s" when it ends, if verbose() then.
class Stage {
 public:
  explicit Stage(std::string what) : what_(std::move(what)) {}
  ~Stage();
  Stage(const Stage&) = delete;
  Stage& operator=(const Stage&) = delete;

 private:
  std::string what_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace longreach
