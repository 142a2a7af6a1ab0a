#include "distributed/line_relay.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/error.h"

namespace longreach {
namespace {

// What a pipe holds, and the longest line that is written as one.
constexpr size_t kPipeBytes = size_t{64} << 10;
constexpr int kMostPipes = 16;  // a process may have made its pipe this much larger

void close_once(int& descriptor) {
  if (descriptor >= 0) ::close(descriptor);
  descriptor = -1;
}

bool write_all(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(STDERR_FILENO, bytes.data(), bytes.size());
    if (written >= 0) {
      bytes.remove_prefix(static_cast<size_t>(written));
    } else if (errno == EAGAIN) {  // whoever shares it has made it non-blocking
      pollfd writable{STDERR_FILENO, POLLOUT, 0};
      ::poll(&writable, 1, -1);
    } else if (errno != EINTR) {
      return false;
    }
  }
  return true;
}

}  // namespace

int LineRelay::add(const std::string& prefix, const std::string& held_back) {
  int ends[2];
  check<Error>(::pipe2(ends, O_CLOEXEC) == 0, "cannot make a pipe: ", std::strerror(errno));
  ::fcntl(ends[0], F_SETFL, O_NONBLOCK);  // of the reading end alone
  sources_.push_back({ends[0], ends[1], prefix, held_back, "", ""});
  return ends[1];
}

void LineRelay::handed_over() {
  for (Source& source : sources_) close_once(source.writer);
}

void LineRelay::start() {
  check<Error>(::pipe2(wake_, O_CLOEXEC) == 0, "cannot make a pipe: ", std::strerror(errno));
  thread_ = std::thread([this] { copy_lines(); });
}

void LineRelay::finish(const std::set<std::string>& silenced) {
  close_once(wake_[1]);
  if (thread_.joinable()) thread_.join();
  close_once(wake_[0]);
  handed_over();
  for (Source& source : sources_) {
    close_once(source.pipe);
    if (silenced.count(source.prefix) == 0) somebody_reads_ = somebody_reads_ && write_all(source.held);
    source.held.clear();
  }
}

void LineRelay::copy_lines() {
  std::vector<pollfd> polled;
  for (;;) {
    polled = {{wake_[0], POLLIN, 0}};
    for (const Source& source : sources_)
      polled.push_back({source.pipe, POLLIN, 0});  // a negative one is skipped
    if (::poll(polled.data(), polled.size(), -1) < 0) continue;
    if (polled[0].revents != 0) break;
    for (size_t i = 0; i < sources_.size(); ++i)
      if (polled[i + 1].revents != 0 && read_some(sources_[i]) == 0) close_once(sources_[i].pipe);
  }
  // A process that a rank has left behind may hold the pipe, and write to it for ever.
  for (Source& source : sources_) {
    for (int i = 0; i < kMostPipes && source.pipe >= 0 && read_some(source) > 0; ++i) {
    }
    write_lines(source, true);
  }
}

ssize_t LineRelay::read_some(Source& source) {
  char block[kPipeBytes];
  const ssize_t count = ::read(source.pipe, block, sizeof block);
  if (count > 0) {
    source.rest.append(block, static_cast<size_t>(count));
    write_lines(source, source.rest.size() > kPipeBytes && source.rest.find('\n') == std::string::npos);
  }
  return count;
}

void LineRelay::write_lines(Source& source, bool whole) {
  std::string lines;
  size_t begin = 0;
  for (size_t end; (end = source.rest.find('\n', begin)) != std::string::npos; begin = end + 1) {
    const bool held = !source.held_back.empty() &&
                      source.rest.compare(begin, source.held_back.size(), source.held_back) == 0;
    (held ? source.held : lines).append(source.prefix).append(source.rest, begin, end + 1 - begin);
  }
  source.rest.erase(0, begin);
  if (whole && !source.rest.empty()) {
    lines.append(source.prefix).append(source.rest).append("\n");
    source.rest.clear();
  }
  somebody_reads_ = somebody_reads_ && write_all(lines);
}

}  // namespace longreach
