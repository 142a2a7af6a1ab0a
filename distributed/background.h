// Work that runs beside the thread that asks for it: one piece after the other, in the order asked for.
#pragma once
#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>

namespace longreach {

class Background {
 public:
  Background();
  ~Background();  // when all work has ended
  Background(const Background&) = delete;
  Background& operator=(const Background&) = delete;

  void submit(std::function<void()> work);
  // Until all work has ended. Rethrows what the first piece that failed threw; those behind it are not done.
  void wait();

 private:
  void run();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> waiting_;
  bool busy_ = false, ends_ = false;
  std::exception_ptr failure_;
  std::thread thread_;
};

}  // namespace longreach
