// Text of the progress line, and when to show it.
#include "train/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <cmath>

#include "core/error.h"

namespace longreach {
namespace {

template <class... Values>
std::string format(const char* pattern, Values... values) {
  char buffer[128];
  const int length = std::snprintf(buffer, sizeof buffer, pattern, values...);
  return std::string(buffer, std::min<size_t>(static_cast<size_t>(std::max(length, 0)), sizeof buffer - 1));
}

std::string rate_text(double rate) {
  if (rate >= 1e6) return format("%.2fM tok/s", rate / 1e6);
  return rate >= 1e4 ? format("%.1fk tok/s", rate / 1e3) : format("%.0f tok/s", rate);
}

size_t columns(std::FILE* out) {
  struct winsize size {};
  return ::ioctl(::fileno(out), TIOCGWINSZ, &size) == 0 && size.ws_col > 1 ? size.ws_col - 1u : 119u;
}

}  // namespace

std::string duration_text(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0) return "?";
  const auto whole = static_cast<long long>(std::min(std::round(seconds), 1e12));
  const long long days = whole / 86400, hours = whole / 3600 % 24, minutes = whole / 60 % 60;
  if (days > 0) return format("%lldd%02lldh", days, hours);
  if (hours > 0) return format("%lldh%02lldm", hours, minutes);
  return minutes > 0 ? format("%lldm%02llds", minutes, whole % 60) : format("%llds", whole);
}

std::string progress_text(const ProgressReport& report) {
  const auto digits = static_cast<int>(std::to_string(report.last_step).size());
  std::string line = format("step %*lld/%lld  ", digits, static_cast<long long>(report.step),
                            static_cast<long long>(report.last_step));
  line += report.loss ? format("loss %.4f  ", *report.loss) : "no label  ";
  line += rate_text(report.tokens_per_second);
  if (report.peak_share >= 0) line += format("  %.0f%% of peak", 100 * report.peak_share);
  if (report.gradient_norm >= 0 || std::isnan(report.gradient_norm))
    line += format("  grad %.3g", report.gradient_norm);
  line += format("  lr %.1e", report.learning_rate);
  if (report.memory_bytes > 0)
    line += format("  %.2f GiB", static_cast<double>(report.memory_bytes) / (1 << 30));
  if (report.eta_seconds >= 0) line += "  ETA " + duration_text(report.eta_seconds);
  return line;
}

std::string EvaluationClock::at(int64_t done, int64_t rows) {
  if (done == 0) begun_ = std::chrono::steady_clock::now();
  const std::string line = text("evaluating ", done, "/", rows, " rows");
  if (done == 0) return line;
  return line + "  ETA " +
         duration_text(seconds() / static_cast<double>(done) * static_cast<double>(rows - done));
}

double EvaluationClock::seconds() const {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begun_).count();
}

ProgressLine::ProgressLine(std::FILE* out, double plain_seconds)
    : ProgressLine(out, plain_seconds, ::isatty(::fileno(out)) == 1) {}

ProgressLine::ProgressLine(std::FILE* out, double plain_seconds, bool terminal)
    : out_(out), interval_(terminal ? 0.1 : plain_seconds), terminal_(terminal) {}

ProgressLine::~ProgressLine() { finish(); }

void ProgressLine::update(const ProgressReport& report) {
  const bool due = !shown_ || seconds_since_shown() >= interval_;
  if (!due && report.step < report.last_step) return;
  shown_ = true;
  show(progress_text(report));
}

void ProgressLine::activity(const std::string& line) {
  constexpr double kPatience = 10;
  if (seconds_since_shown() >= (terminal_ ? interval_ : kPatience)) show(line);
}

double ProgressLine::seconds_since_shown() const {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - last_).count();
}

void ProgressLine::show(const std::string& line) {
  last_ = std::chrono::steady_clock::now();
  if (!terminal_) {
    std::fprintf(out_, "%s\n", line.c_str());
  } else {
    current_ = line.substr(0, columns(out_));
    std::fprintf(out_, "\r%s\x1b[K", current_.c_str());  // \x1b[K clears what a longer line left behind
    open_ = true;
  }
  std::fflush(out_);
}

void ProgressLine::message(const std::string& line) {
  std::fprintf(out_, "%s%s\n", open_ ? "\r\x1b[K" : "", line.c_str());
  if (open_) std::fprintf(out_, "%s", current_.c_str());
  std::fflush(out_);
}

void ProgressLine::finish() {
  if (open_) std::fprintf(out_, "\n");
  std::fflush(out_);
  open_ = false;
}

}  // namespace longreach
