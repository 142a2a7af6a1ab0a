// The output of several processes on one standard error, line by line, each behind the name of its process.
#pragma once
#include <sys/types.h>

#include <set>
#include <string>
#include <thread>
#include <vector>

namespace longreach {

// A thread of its own copies, so that whoever watches the processes is never held up by a slow reader of
// standard error; the processes wait when their pipes are full, as they would on a terminal. Where nobody
// reads any more, what they write is thrown away.
class LineRelay {
 public:
  LineRelay() = default;
  ~LineRelay() { finish(); }
  LineRelay(const LineRelay&) = delete;
  LineRelay& operator=(const LineRelay&) = delete;

  // A pipe whose lines will be written behind `prefix`: returns the end for a process to write to. Lines that
  // begin with `held_back` wait for finish().
  int add(const std::string& prefix, const std::string& held_back = {});
  // Processes have the ends that add() returned; ours are closed.
  void handed_over();
  // When all are there.
  void start();
  // Copies what the processes, which have ended, left in their pipes, and stops. What was held back is
  // written now, but not that of these prefixes.
  void finish(const std::set<std::string>& silenced = {});

 private:
  struct Source {
    int pipe, writer;
    std::string prefix, held_back, rest, held;
  };

  void copy_lines();
  // What read() says: bytes, 0 at the end, -1 when there is nothing now.
  ssize_t read_some(Source& source);
  // `whole`: what has no line feed yet, too.
  void write_lines(Source& source, bool whole);

  std::vector<Source> sources_;
  int wake_[2] = {-1, -1};
  bool somebody_reads_ = true;
  std::thread thread_;
};

}  // namespace longreach
