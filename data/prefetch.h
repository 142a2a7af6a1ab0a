// Makes the next item on another thread while the present one is used.
#pragma once
#include <cstdint>
#include <functional>
#include <future>
#include <utility>

namespace longreach::data {

// get(i) returns load(i) and begins load(i + 1) in the background. Asking for another index than the next one
// is allowed: the waiting item is dropped. `load` must be safe to call from another thread; what it throws is
// thrown by get.
template <class T>
class Prefetcher {
 public:
  explicit Prefetcher(std::function<T(int64_t)> load) : load_(std::move(load)) {}
  ~Prefetcher() {
    if (next_.valid()) next_.wait();
  }
  Prefetcher(const Prefetcher&) = delete;
  Prefetcher& operator=(const Prefetcher&) = delete;

  T get(int64_t index) {
    T item = next_.valid() && next_index_ == index ? next_.get() : load_(index);
    next_index_ = index + 1;
    next_ = std::async(std::launch::async, load_, next_index_);
    return item;
  }

 private:
  std::function<T(int64_t)> load_;
  std::future<T> next_;
  int64_t next_index_ = -1;
};

}  // namespace longreach::data
