#include "train/program/last_words.h"

#include <cxxabi.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <new>
#include <system_error>
#include <thread>
#include <typeinfo>
#include <vector>

#include "core/error.h"

namespace longreach {
namespace {

// " (ulimit -v is 440000 kB)", or nothing where memory has no such limit. Allocates nothing.
struct MemoryLimit {
  MemoryLimit() {
    rlimit limit{};
    if (::getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
      std::snprintf(words, sizeof words, " (ulimit -v is %llu kB)",
                    static_cast<unsigned long long>(limit.rlim_cur) / 1024);
  }
  char words[64] = "";
};

void print(const char* line) {
  if (::write(STDERR_FILENO, line, std::strlen(line)) < 0) return;  // nobody is left to tell
}

[[noreturn]] void on_terminate() {
  print("error: ");
  const std::type_info* type = abi::__cxa_current_exception_type();
  if (type == nullptr) {
    print("the program ended itself\n");
  } else if (*type == typeid(std::bad_alloc)) {
    print("out of memory");
    print(MemoryLimit().words);
    print("\n");
  } else {
    try {
      throw;
    } catch (const std::exception& error) {
      print(one_line(error.what(), 990).c_str());
    } catch (...) {
      print(type->name());
    }
    print("\n");
  }
  ::_exit(1);
}

// oneDNN uses what malloc gives without a look at it: memory that is refused becomes a fault at an offset
// from null.
void on_fault(int signal, siginfo_t* info, void*) {
  constexpr uintptr_t kNearNull = uintptr_t{1} << 20;
  if (reinterpret_cast<uintptr_t>(info->si_addr) >= kNearNull) {
    std::signal(signal, SIG_DFL);  // the same instruction faults again and ends the program
    return;
  }
  print("error: out of memory in a library");
  print(MemoryLimit().words);
  print("\n");
  ::_exit(1);
}

void take_faults_where_memory_is_limited() {
  if (MemoryLimit().words[0] == '\0') return;
  struct sigaction action {};
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO;
  ::sigaction(SIGSEGV, &action, nullptr);
}

}  // namespace

void end_in_one_line() {
  std::set_terminate(on_terminate);
  take_faults_where_memory_is_limited();
}

void expect_threads(int count) {
  constexpr size_t kWork = size_t{16} << 20;
  std::atomic<bool> done{false};
  std::vector<std::thread> threads;
  threads.reserve(static_cast<size_t>(count));
  int failure = 0;
  try {
    for (int i = 0; i < count; ++i) threads.emplace_back([&done] { done.wait(false); });
    void* const room =
        ::mmap(nullptr, kWork, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == MAP_FAILED)
      failure = errno;
    else
      ::munmap(room, kWork);
  } catch (const std::system_error& error) {
    failure = error.code().value();
  }
  done = true;
  done.notify_all();
  for (std::thread& thread : threads) thread.join();
  check<Error>(failure == 0, "out of memory or threads: ", count,
               " threads cannot run at once: ", std::generic_category().message(failure),
               MemoryLimit().words);
}

}  // namespace longreach
