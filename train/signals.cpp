#include "train/signals.h"

#include <pthread.h>
#include <unistd.h>

#include <csignal>
#include <ctime>
#include <iterator>
#include <thread>

namespace longreach {
namespace {

constexpr int kSignals[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1};
struct sigaction found[std::size(kSignals)];
volatile std::sig_atomic_t first_signal = 0, ending_since = 0;

// `timeout` sends its signal to the process and to its group; terminals and service managers send SIGHUP
// beside SIGTERM. So one wish may arrive as several signals, and what comes within a second, or asks for
// less, is no second wish.
void on_signal(int signal) {
  if (first_signal == 0) first_signal = signal;
  if (signal != SIGTERM && signal != SIGINT) return;
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  const auto seconds = static_cast<std::sig_atomic_t>(now.tv_sec + 1);  // never 0
  if (ending_since == 0) {
    ending_since = seconds;
  } else if (seconds - ending_since > 1) {
    std::signal(signal, SIG_DFL);
    std::raise(signal);
  }
}

}  // namespace

void take_stop_signals_on_a_thread() {
  sigset_t ours, before;
  sigemptyset(&ours);
  for (const int signal : kSignals) sigaddset(&ours, signal);
  ::pthread_sigmask(SIG_BLOCK, &ours, &before);
  std::thread([before] {
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    for (;;) ::pause();
  }).detach();
  // A forked copy has no such thread.
  static sigset_t for_children;
  for_children = before;
  ::pthread_atfork(nullptr, nullptr, [] { ::pthread_sigmask(SIG_SETMASK, &for_children, nullptr); });
}

void watch_stop_signals() {
  first_signal = 0;
  ending_since = 0;
  struct sigaction action {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;
  for (size_t i = 0; i < std::size(kSignals); ++i) {
    sigaction(kSignals[i], nullptr, &found[i]);
    if (kSignals[i] != SIGHUP || found[i].sa_handler != SIG_IGN) sigaction(kSignals[i], &action, nullptr);
  }
}

void forget_stop_signals() {
  for (size_t i = 0; i < std::size(kSignals); ++i) sigaction(kSignals[i], &found[i], nullptr);
}

void request_stop(int signal) { first_signal = signal; }

int stop_signal() { return first_signal; }

}  // namespace longreach
